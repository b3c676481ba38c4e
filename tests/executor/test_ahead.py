"""Steps launched before the one ahead of them was read: nothing an engine answers or holds may show it.

The backend here runs on the CPU and keeps newest tokens where a GPU does, by the slots that they will fill; a planned
step's own ids of decoding rows are a step old and are spoilt, so that nothing can live by them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.executor.backend import CpuBackend
from dql.executor.block_pool import BlockPool
from dql.executor.engine import Engine
from dql.executor.models.decoder import CausalModel, Decoder
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Task, Tokens
from dql.executor.step import Places, Step
from dql.models import open_model
from tests.executor.test_engine import SLOT_BYTES, answers, assert_same, prompt, prompts, tasks


class AheadBackend(CpuBackend):
    """Takes one step more than is awaited."""

    ahead = 1
    reads_lanes_in_place = False

    def __init__(self, decoder: CausalModel, pool: BlockPool) -> None:
        super().__init__(decoder, pool)
        self._newest = np.full(pool.slots + 1, -1)

    def drawn(self, slots: Places, tokens: torch.Tensor) -> None:
        self._newest[slots] = tokens.numpy()

    def forward(self, step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        ids = step.ids.copy()
        if step.slabs:
            decoding = slice(step.slabs[0].place, None)
            ids[decoding] = self._newest[step.slots[decoding]]
        return super().forward(replace(step, ids=ids), cancelled)


@pytest.fixture(scope="module")
def engines(model_file: Path) -> tuple[Engine, Engine]:
    """One that reads every step at once, and one a step behind; small steps and few lanes."""
    model = open_model(model_file, name="tiny", uri="tiny")
    options = EngineOptions(kv_bytes=2048 * SLOT_BYTES, step_tokens=48, max_rows=5, window=7)
    plain, ahead = Engine.load(model, options), Engine.load(model, options)
    assert isinstance(ahead.model, Decoder)
    ahead._backend = AheadBackend(ahead.model, ahead.pool)
    return plain, ahead


work = st.lists(st.tuples(prompts, tasks), min_size=1, max_size=16)


@settings(settings.get_profile("engine"), max_examples=12)
@given(work)
def test_answers_are_those_of_steps_read_at_once(
    engines: tuple[Engine, Engine], asked: list[tuple[Tokens, Task]]
) -> None:
    requests = [Request(i, tokens, task) for i, (tokens, task) in enumerate(asked)]
    plain, ahead = (answers(engine, requests) for engine in engines)
    for number, answer in ahead.items():
        assert_same(answer, plain[number])
    assert engines[1].free_slots == engines[1].pool.slots


@settings(settings.get_profile("engine"), max_examples=15)
@given(work, st.integers(0, 16))
def test_a_run_closed_early_frees_what_is_under_way(
    engines: tuple[Engine, Engine], asked: list[tuple[Tokens, Task]], taken: int
) -> None:
    running = engines[1].run(Request(i, tokens, task) for i, (tokens, task) in enumerate(asked))
    for _ in zip(range(taken), running, strict=False):
        pass
    running.close()
    assert engines[1].free_slots == engines[1].pool.slots


def test_a_cancelled_run_answers_every_request_that_it_pulled(engines: tuple[Engine, Engine]) -> None:
    pulled: list[int] = []

    def endless() -> Iterator[Request]:
        while True:
            pulled.append(len(pulled))
            yield Request(pulled[-1], prompt(pulled[-1], 12, shared=40), Generate(30))

    running = engines[1].run(endless())
    found = [next(running)]
    engines[1].cancel()
    found.extend(running)
    assert sorted(answer.id for answer in found) == pulled
    assert engines[1].free_slots == engines[1].pool.slots


class Widening:
    """Few rows at once for the first steps, on which guesses pay; then many, on which they do not."""

    step_tokens = 1024

    def __init__(self) -> None:
        self._steps = 0

    @property
    def max_rows(self) -> int:
        self._steps += 1
        return 6 if self._steps < 20 else 40


def test_guesses_that_stop_paying_are_read_before_more_is_planned(model_file: Path) -> None:
    """Rows join in a step with guesses until no further ones pay: what was guessed decides where rows go on."""
    model = open_model(model_file, name="tiny", uri="tiny")
    options = EngineOptions(kv_bytes=4096 * SLOT_BYTES)
    plain, ahead = Engine.load(model, options), Engine.load(model, options)
    assert isinstance(ahead.model, Decoder)
    ahead._backend = AheadBackend(ahead.model, ahead.pool)
    requests = [Request(i, np.tile(prompt(i, 4), 3), Generate(48)) for i in range(40)]
    expected = answers(plain, requests)
    for answer in ahead.run(requests, pace=Widening()):
        assert_same(answer, expected[answer.id])
    assert ahead.counters.accepted
