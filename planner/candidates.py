"""The search space as one frame: every placement that could run a query, a row each, priced in closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from dql.models.shape import ModelShape
from dql.planner.hardware import Floats, Hardware
from dql.planner.lengths import mean
from dql.planner.memory import Engine, Memory, draft_memory, memory, peak
from dql.planner.physical import Placement
from dql.planner.simulate import steps_of
from dql.planner.speculation import pays
from dql.planner.step_model import StepModel
from dql.planner.workload import Workload

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
STEP_TOKENS = {"cpu": (32, 64, 128, 256, 512, 1024, 2048), "cuda": (512, 1024, 2048, 4096, 8192, 16384)}
KEYS = ("weights", "kv_cache", "tensor_parallel", "pipeline_parallel", "data_parallel")
SIZES = ("max_rows", "step_tokens")


@dataclass(frozen=True, slots=True)
class Draft:
    """The model that guesses ahead for a call."""

    model: str
    shape: ModelShape


@dataclass(frozen=True, slots=True)
class PricedCall:
    """One call to be placed: the column of its answer, its model, what it asks, and how far earlier runs were off.

    run: names the calls that an engine answers together, so that they have one placement. factors: measured over
    modelled seconds by precision of the weights; 1 where nothing ran in it. weights: the precision of a call that has
    its own, "" where it is the plan's. draft: whose memory it takes as well. late: by precision, by what share rows at
    p95 were later than predicted in earlier runs; nothing where too few ran in it.
    """

    out: str
    model: str
    shape: ModelShape
    work: Workload
    run: str = ""
    factors: Mapping[str, float] = field(default_factory=dict)
    weights: str = ""
    draft: Draft | None = None
    late: Mapping[str, float] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """What it shares weights with other calls by."""
        return self.model, self.weights

    def at(self, placement: Placement) -> Placement:
        """The plan's placement, in the call's own precision where it has one."""
        return replace(placement, weights=self.weights) if self.weights else placement

    def factor(self, weights: str) -> float:
        """What seconds modelled in this precision are to be multiplied with."""
        return self.factors.get(weights, 1.0)

    def memory(
        self, placement: Placement, max_rows: ArrayLike, step_tokens: ArrayLike, hardware: Hardware
    ) -> dict[Engine, Memory]:
        """What it takes at these sizes, by engine: its own, and the draft's."""
        own = self.at(placement)
        found = {self.engine: memory(self.shape, self.work, own, max_rows, step_tokens, hardware)}
        if self.draft is not None:
            beside = draft_memory(self.draft.shape, self.work, own, max_rows, hardware)
            found[self.draft.model, self.weights] = beside
        return found


@dataclass(frozen=True, slots=True)
class Space:
    """What may be chosen. Several precisions where lossy ones are allowed or only shown."""

    weights: tuple[str, ...]
    kv_cache: tuple[str, ...]
    max_rows: tuple[int, ...] = ROWS
    step_tokens: tuple[int, ...] = STEP_TOKENS["cpu"]
    tensor_parallel: tuple[int, ...] = (1,)
    pipeline_parallel: tuple[int, ...] = (1,)
    data_parallel: tuple[int, ...] = (1,)
    devices: int = 1


def frame(space: Space) -> pl.DataFrame:
    """Every combination of the space that its devices suffice for; those of one precision and sharding together."""
    precisions = list(product(space.weights, space.kv_cache))
    sharding = product(space.tensor_parallel, space.pipeline_parallel, space.data_parallel)
    shards = [counts for counts in sharding if prod(counts) <= space.devices]
    most = max(space.step_tokens)  # a step must hold a token of every decoding row
    sizes = [pair for pair in product(space.max_rows, space.step_tokens) if pair[1] >= min(pair[0], most)]
    at = np.indices((len(precisions), len(shards), len(sizes))).reshape(3, -1)
    parts: Sequence[Sequence[tuple[object, ...]]] = (precisions, shards, sizes)
    columns: list[pl.Series] = []
    for names, part, places in zip((KEYS[:2], KEYS[2:], SIZES), parts, at, strict=True):
        columns += [pl.Series(name, each)[places] for name, each in zip(names, zip(*part, strict=True), strict=True)]
    return pl.DataFrame(columns)


def price(
    candidates: pl.DataFrame, calls: Sequence[PricedCall], hardware: Hardware, *, deterministic: bool = False
) -> pl.DataFrame:
    """`candidates` with columns seconds, memory (bytes on a device), and typical seconds of a row: latency in all, ttft
    to its first token, tpot between tokens.
    """
    parts = []
    for part in candidates.partition_by(KEYS, maintain_order=True):
        first = part.row(0, named=True)
        placement = Placement(**{name: first[name] for name in KEYS}, deterministic=deterministic)
        rows, tokens = part["max_rows"].to_numpy(), part["step_tokens"].to_numpy()
        seconds, latency, ttft, tpot = (np.zeros(len(part)) for _ in range(4))
        for call in calls:
            own = call.at(placement)
            model = StepModel(hardware, call.shape, own)
            total, row, step, full = closed_form(model, call.work, rows.astype(float), tokens.astype(float))
            factor = call.factor(own.weights)
            seconds, latency = seconds + total * factor, latency + row * factor
            ttft, tpot = np.maximum(ttft, full * factor), np.maximum(tpot, step * factor)
        used = peak(call.memory(placement, rows, tokens, hardware) for call in calls)
        figures = {"seconds": seconds, "latency": latency, "ttft": ttft, "tpot": tpot, "memory": used}
        parts.append(part.with_columns(**{name: pl.Series(values) for name, values in figures.items()}))
    return pl.concat(parts)


def closed_form(
    model: StepModel, work: Workload, max_rows: Floats, step_tokens: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Seconds of the whole call, of one row, of a decoding step and to a first token, at the steady state of each batch
    size and step size.
    """
    rows = np.ceil(work.distinct / model.placement.data_parallel)
    prompt = max(work.mean_own * work.fresh, 1.0)
    if not work.decodes:
        per_step = np.clip(step_tokens / (prompt + work.tail), 1 / np.ceil(prompt / step_tokens), max(rows, 1))
        tokens = per_step * (prompt + work.tail)
        none = np.zeros_like(tokens)
        step = model.seconds(steps_of(work, tokens, per_step * prompt, per_step, none, none))
        row = step * np.maximum(1, 1 / per_step)
        return step * (rows / per_step + work.shared / step_tokens), row, none, row
    most = np.minimum(max_rows, max(rows, 1))
    guesses = pays(most, model.hardware.kind) if work.gains else np.zeros_like(most, np.bool_)
    drawn = np.maximum(work.mean_output, 1.0) / np.where(guesses, mean(work.gains or (1.0,)), 1.0)
    lanes = np.minimum(most, step_tokens / (1 + prompt / drawn))
    begun = lanes / drawn
    guessed = work.guessed_tokens(lanes, most, model.hardware.kind)
    keys = lanes * (work.mean_own + drawn / 2)
    step = model.seconds(steps_of(work, lanes + begun * prompt, begun * prompt, begun, lanes, keys, guessed))
    # a run begins with full prompt steps and ends with a batch that thins out
    steps = rows * drawn / lanes + drawn / 2 + (work.shared + lanes * prompt) / step_tokens
    # while a batch fills, steps are full of prompts
    filling = np.minimum(step_tokens, (lanes + 1) * prompt)
    full = model.seconds(steps_of(work, filling, filling, filling / prompt, np.zeros_like(lanes), np.zeros_like(lanes)))
    return step * steps, step * drawn, step, full * np.maximum(1, prompt / step_tokens)
