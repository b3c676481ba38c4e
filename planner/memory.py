"""Bytes that placements take on each device, exact to the KV slot. All sizes may be arrays, one entry a placement."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dql.models.shape import ModelShape
from dql.planner.hardware import BYTES_PER_VALUE, Floats, Hardware, Kind
from dql.planner.physical import Placement
from dql.planner.speculation import DRAFT_LANES, DRAFT_STEP, draft_width

if TYPE_CHECKING:  # the engine reckons with these sums too, where nothing that reads tables is installed
    from dql.planner.workload import Workload

Engine = tuple[str, str]  # a model, and the precision of its weights where that is not the plan's

INT4_GROUP = 128  # inputs that share a scale
_HEAD_CHUNK = 4096  # vocabulary columns of the logits that exist at once
_HUGE_PAGE = 2 << 20  # bytes that Linux clears and gives at once of the large arrays that NumPy asks for
_LIBRARIES = 80 << 20  # bytes of products that oneDNN keeps prepared, and of what the heap keeps of loading (measured)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device that holds most: weights, KV cache, and the activations of the largest step.

    On a CPU the latter hold what libraries and the system take beside what they are asked for.
    """

    weights: float
    kv_cache: Floats
    activations: Floats

    @property
    def total(self) -> Floats:
        return self.weights + self.working

    @property
    def working(self) -> Floats:
        """What is held while a call runs, and free again for the next one."""
        return self.kv_cache + self.activations


def kv_slots(work: "Workload", max_rows: ArrayLike, step_tokens: ArrayLike) -> Floats:
    """Token slots that a run needs: the shared run, and every row in flight at its longest."""
    in_flight = np.asarray(max_rows, np.float64)
    if not work.decodes:
        in_flight = np.maximum(np.floor(np.divide(step_tokens, max(1, work.lane))), 1)
    found: Floats = work.shared + np.minimum(in_flight, work.distinct) * work.lane
    return found


def memory(
    shape: ModelShape,
    work: "Workload",
    placement: Placement,
    max_rows: ArrayLike,
    step_tokens: ArrayLike,
    hardware: Hardware,
) -> Memory:
    """What a call takes where `placement` shards it over such devices, at these batch and step sizes."""
    kind, bf16 = hardware.kind, "bf16" in hardware.peak
    shards, stages = placement.tensor_parallel, placement.pipeline_parallel
    per_slot = shape.kv_bytes_per_token(BYTES_PER_VALUE[placement.kv_cache]) / shards / stages
    slots = kv_slots(work, max_rows, step_tokens)
    return Memory(
        weights=matrix_bytes(shape, placement.weights, kind, bf16=bf16) / shards / stages
        + end_bytes(shape, placement.weights, kind, bf16=bf16, whole=stages == 1, draws=work.decodes) / shards,
        kv_cache=slots * per_slot,
        activations=_activations(shape, placement, kind, np.asarray(max_rows), np.asarray(step_tokens))
        + (_LIBRARIES + _page_ends(shape, slots * per_slot) if kind == "cpu" else 0.0),
    )


def draft_slots(work: "Workload", max_rows: ArrayLike) -> Floats:
    """Token slots that a draft model needs: each row in flight has its whole text there, the shared run included."""
    lanes = np.ceil(np.minimum(np.asarray(max_rows, np.float64), work.distinct) / DRAFT_LANES) * DRAFT_LANES
    found: Floats = lanes * draft_width(work.shared + work.lane + 1)
    return found


def draft_memory(
    shape: ModelShape, work: "Workload", placement: Placement, max_rows: ArrayLike, hardware: Hardware
) -> Memory:
    """What the model that guesses ahead for a call takes beside it, in the same placement."""
    slots = draft_slots(work, max_rows)
    part = memory(shape, work, placement, max_rows, np.minimum(slots, DRAFT_STEP), hardware)
    per_slot = shape.kv_bytes_per_token(BYTES_PER_VALUE[placement.kv_cache])
    return replace(part, kv_cache=slots * per_slot / placement.tensor_parallel / placement.pipeline_parallel)


def peak(calls: Iterable[Mapping[Engine, Memory]]) -> Floats:
    """Bytes of calls that run after each other, each on engines that run it together: the weights of each engine once,
    the largest of the rest."""
    known = list(calls)
    rest = [sum((part.working for part in call.values()), np.zeros(1)) for call in known]
    found: Floats = held(known) + (np.max(rest, axis=0) if rest else np.zeros(1))
    return found


def held(calls: Iterable[Mapping[Engine, Memory]]) -> float:
    """Bytes of the weights of each engine once, with all that one of the calls needs of them."""
    weights: dict[Engine, float] = {}
    for call in calls:
        for engine, part in call.items():
            weights[engine] = max(part.weights, weights.get(engine, 0.0))
    return sum(weights.values())


def matrix_bytes(shape: ModelShape, weights: str, kind: Kind, *, bf16: bool) -> float:
    """Bytes of the matrices of all layers in a precision, those counted that it leaves wider.

    int8 on the CPU leaves the output and down projections, and holds the others a second time, for what prompts begin
    with; int4 leaves what has no whole groups of inputs. bf16: whether the processor multiplies it by itself.
    """
    value, hidden = BYTES_PER_VALUE[weights], shape.hidden_size
    below_norms = (hidden, shape.query_size + 2 * shape.kv_size + 2 * shape.intermediate_size)  # inputs, outputs
    others = ((shape.query_size, hidden), (shape.intermediate_size, hidden))
    wide, wide_value, second = 0, value, 0
    if kind == "cpu" and weights == "int8" and shape.causal:
        wide = sum(inputs * count for inputs, count in others)
        wide_value = BYTES_PER_VALUE["bf16" if bf16 else "fp32"]
        second = below_norms[0] * below_norms[1]
    elif weights == "int4":
        wide = sum(inputs * count for inputs, count in (below_norms, *others) if inputs % INT4_GROUP)
        wide_value = BYTES_PER_VALUE["bf16"]
    return shape.layer_parameters * value + shape.num_layers * (wide * (wide_value - value) + second * wide_value)


def end_bytes(
    shape: ModelShape, weights: str, kind: Kind, *, bf16: bool, whole: bool = True, draws: bool = True
) -> float:
    """Bytes of embedding and LM head; not `whole`: of the larger, where they lie on different devices of a pipeline.

    They stay in fp32 on the CPU, where the head lies packed beside the rows that labels are read from, and for calls
    that draw tokens in bf16 as well, for a first pass where the processor has it; in 16 bits elsewhere, or in the
    precision of the weights if that is wider.
    """
    value = 4.0 if kind == "cpu" else max(BYTES_PER_VALUE[weights], 2.0)
    packed = kind == "cpu" and shape.causal
    copies = (1 if shape.tie_embeddings or not shape.causal else 2) + packed
    screen = BYTES_PER_VALUE["bf16"] if packed and draws and shape.logit_softcap is None and bf16 else 0.0
    return shape.embedding_parameters * (value * (copies if whole else 1) + screen)


def _activations(shape: ModelShape, placement: Placement, kind: Kind, max_rows: Floats, step_tokens: Floats) -> Floats:
    value = 4.0 if kind == "cpu" or placement.weights == "fp32" else 2.0
    widest = max(3 * shape.intermediate_size, 2 * shape.query_size + 2 * shape.kv_size)
    tokens = step_tokens * (3 * shape.hidden_size + widest / placement.tensor_parallel) * value
    logits = np.minimum(max_rows, step_tokens) * min(_HEAD_CHUNK, shape.vocab_size) * 4.0 * 2
    found: Floats = tokens + logits
    return found


def _page_ends(shape: ModelShape, cache: Floats) -> Floats:
    """The rest of the last huge page that each layer's keys, and its values, reach into on a CPU; less than a page
    reaches into a second one as often as it is large.
    """
    arrays = 2 * shape.num_layers
    each = cache / arrays
    rest = np.where(each < _HUGE_PAGE, each - each**2 / (2 * _HUGE_PAGE), _HUGE_PAGE / 2)
    found: Floats = arrays * rest
    return found
