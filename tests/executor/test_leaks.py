"""However a run ends, every block is freed once: steps fail, runs are cancelled, closed early, nested."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dql.executor.block_pool import Block
from dql.executor.engine import Engine
from dql.executor.models.decoder import Attention, Decoder, PackedTokens
from dql.executor.options import EngineOptions
from dql.executor.requests import Answer, Generate, Request, Score, Task
from dql.executor.speculate import LONGEST_WAIT
from dql.executor.step import Places, Step
from dql.kernels.kv_cache import KVCache
from dql.models import Model, open_model

ROOT = Path(__file__).resolve().parents[2]
LABELS = ((5, 2), (6, 7, 2), (9,))
SHARED = np.random.default_rng(2).integers(3, 250, 45).astype(np.int32)
SMALL = EngineOptions(kv_bytes=1 << 20, step_tokens=64, max_rows=5, window=9)
SCARCE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
Fault = Callable[[int], Exception | None]


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


class Watched(Engine):
    """Keeps account of blocks, and fails in the steps that `fault` names."""

    balance: Counter[Block]

    @classmethod
    def of(cls, model: Model, fault: Fault) -> "Watched":
        engine = cls.load(model, SMALL)
        assert isinstance(engine, cls)
        engine._watch(fault)
        return engine

    def _watch(self, fault: Fault) -> None:
        self.balance = Counter()
        pool, decoder = self.pool, self.model
        assert isinstance(decoder, Decoder)
        allocate, free, forward, steps = pool.allocate, pool.free, decoder.forward, count()

        def allocated(length: int) -> Block | None:
            block = allocate(length)
            if block is not None:
                self.balance[block] += 1
            return block

        def freed(block: Block) -> None:
            self.balance[block] -= 1
            free(block)

        def failing(tokens: PackedTokens, caches: Sequence[KVCache], attention: Attention) -> torch.Tensor:
            if (error := fault(next(steps))) is not None:
                raise error
            return forward(tokens, caches, attention)

        pool.allocate, pool.free = allocated, freed  # type: ignore[method-assign]
        decoder.forward = failing  # type: ignore[method-assign]

    def fail_beside(self, fault: Fault) -> None:
        """Fail wherever else a step or its answers take memory: at the head, in copies, on the way to and from it."""
        calls = count()

        def watched(plain: Callable[..., object]) -> Callable[..., object]:
            def called(*arguments: object, **named: object) -> object:
                if (error := fault(next(calls))) is not None:
                    raise error
                return plain(*arguments, **named)

            return called

        assert isinstance(self.model, Decoder)
        for owner, name in ((self.model.head, "best"), (self.model.head, "logits"), (self.pool, "copy"),
                            (self.backend, "drawn")):  # fmt: skip
            setattr(owner, name, watched(getattr(owner, name)))

    def assert_clean(self) -> None:
        """Only prefixes kept for later are held, and they can be dropped."""
        kept = Counter(resident.block for resident in self.pool.residents)
        assert +self.balance == kept and min(self.balance.values(), default=0) >= 0
        assert self.free_slots == self.pool.slots
        self.pool.clear()
        assert not self.pool.residents and self.free_slots == self.pool.slots


tasks: st.SearchStrategy[Task] = st.one_of(st.integers(1, 12).map(Generate), st.just(Score(LABELS)))
work = st.lists(st.tuples(st.sampled_from([1, 4, 30]), st.sampled_from([0, 3, 45]), tasks), min_size=1, max_size=24)
Work = list[tuple[int, int, Task]]


def requests(work: Work) -> Iterator[Request]:
    for row, (length, shared, task) in enumerate(work):
        own = np.random.default_rng(row).integers(3, 250, length)
        yield Request(row, np.concatenate((SHARED[:shared], own), dtype=np.int32), task)


def chained(engine: Engine, work: Work) -> Generator[Answer]:
    """A run whose requests are made of another's answers, both on one engine."""
    first = engine.run(requests(work))
    try:
        yield from engine.run(Request(a.id, np.append(SHARED[:20], a.tokens), Generate(3)) for a in first)
    finally:
        first.close()


@settings(deadline=None, max_examples=20)
@given(work, st.integers(0, 12), st.booleans())
def test_an_error_in_a_step_passes_through_and_frees_all(model: Model, work: Work, at: int, nested: bool) -> None:
    engine = Watched.of(model, lambda step: RuntimeError("a bug") if step == at else None)
    try:
        list(chained(engine, work) if nested else engine.run(requests(work)))
    except RuntimeError as error:
        assert str(error) == "a bug"
    engine.assert_clean()


@settings(deadline=None, max_examples=20)
@given(work, st.sets(st.integers(0, 20)), st.booleans())
def test_steps_without_memory_lose_nothing(model: Model, work: Work, steps: set[int], nested: bool) -> None:
    scarce = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    engine = Watched.of(model, lambda step: scarce if step in steps else None)
    plain = Engine.load(model, SMALL)
    expected = {a.id: a for a in (chained(plain, work) if nested else plain.run(requests(work)))}
    found = {a.id: a for a in (chained(engine, work) if nested else engine.run(requests(work)))}
    assert found.keys() == expected.keys()
    for id, answer in found.items():
        assert answer.failure is None or answer.failure.kind == "oom"
        if answer.failure is None and not nested:
            assert answer.tokens.tolist() == expected[id].tokens.tolist()
    engine.assert_clean()


@settings(deadline=None, max_examples=20)
@given(work, st.sets(st.integers(0, 20)))
def test_nor_do_steps_whose_memory_runs_out_behind_the_layers(model: Model, work: Work, calls: set[int]) -> None:
    engine = Watched.of(model, lambda step: None)
    engine.options = replace(SMALL, speculate=False)
    expected = {answer.id: answer.tokens.tolist() for answer in engine.run(requests(work))}
    engine.pool.clear()
    engine.fail_beside(lambda call: SCARCE if call in calls else None)
    found = {answer.id: answer for answer in engine.run(requests(work))}
    assert found.keys() == expected.keys()
    for id, answer in found.items():
        assert answer.tokens.tolist() == expected[id] if answer.failure is None else answer.failure.kind == "oom"
    engine.assert_clean()


def run_ahead(engine: Engine) -> None:
    """Let the engine treat its backend as a GPU: a step ahead, decoding rows reading the tokens that it was told."""
    backend, newest = engine.backend, np.zeros(engine.pool.slots + 1, np.int64)
    told, forward = backend.drawn, backend.forward

    def drawn(slots: Places, tokens: torch.Tensor) -> None:
        told(slots, tokens)
        newest[slots] = tokens

    def reading(step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        decoding = slice(step.slabs[0].place if step.slabs else len(step.ids), None)
        ids = np.concatenate((step.ids[: decoding.start], newest[step.slots[decoding]]))
        return forward(replace(step, ids=ids), cancelled)

    backend.drawn, backend.forward = drawn, reading  # type: ignore[method-assign]
    backend.ahead, backend.reads_lanes_in_place = 1, False


def repeating(pairs: Sequence[tuple[int, int]]) -> list[Request]:
    """Texts that the model goes on repeating for so many tokens, or does not, so that guesses come and go."""
    first = ((193, 93), (223, 101), (17, 40), (5, 6))
    return [
        Request(row, np.array([*first[which] * 6, *[7] * (row % 3)], np.int32), Generate(count))
        for row, (which, count) in enumerate(pairs)
    ]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=6),
    st.integers(0, 40),
    st.integers(0, 6),
)
@example([(0, 19), (2, 17), (0, 8)], 7, 5)  # the step after guesses has no room for all rows
def test_nor_do_steps_that_check_guesses(model: Model, pairs: list[tuple[int, int]], first: int, failures: int) -> None:
    """Whichever copies fail, a device that runs ahead is told each token before a step goes on from it."""
    engine = Watched.of(model, lambda step: None)
    engine.options = replace(SMALL, speculate=False)
    expected = {answer.id: answer.tokens.tolist() for answer in engine.run(repeating(pairs))}
    engine.pool.clear()
    engine.options = SMALL
    run_ahead(engine)
    engine.fail_beside(lambda call: SCARCE if first <= call < first + failures else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LONGEST_WAIT, "cpu", LONGEST_WAIT["cuda"])
        found = {answer.id: answer for answer in engine.run(repeating(pairs))}
    assert found.keys() == expected.keys()
    for id, answer in found.items():
        assert answer.tokens.tolist() == expected[id] if answer.failure is None else answer.failure.kind == "oom"
    engine.assert_clean()


@settings(deadline=None, max_examples=20)
@given(work, st.integers(0, 20), st.booleans(), st.booleans())
def test_runs_that_are_closed_or_cancelled_free_all(
    model: Model, work: Work, at: int, nested: bool, cancel: bool
) -> None:
    engine = Watched.of(model, lambda step: None)
    running = chained(engine, work) if nested else engine.run(requests(work))
    for _ in zip(range(at), running, strict=False):
        pass
    if cancel:
        engine.cancel()
        assert all(a.failure is None or a.failure.kind == "cancelled" for a in running)
    running.close()
    engine.assert_clean()
    assert len(list(engine.run(requests(work)))) == len(work)


LONG_RUN = """
import os, sys, threading
from pathlib import Path
import numpy as np, torch
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Score
from dql.models import open_model

def requests(first, last):
    for number in range(first, last):
        tokens = np.random.default_rng(number % 5000).integers(3, 250, 40).astype(np.int32)
        tokens[:30] = np.arange(40, 70)
        yield Request(number, tokens, Score(((5, 2), (6, 7, 2))) if number % 4 else Generate(3))

def used():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()

torch.set_num_threads(1)
model = open_model(Path(sys.argv[1]), name="tiny", uri="tiny")
engine = Engine.load(model, EngineOptions(kv_bytes=1 << 22, window=1000))
assert all(answer.failure is None for answer in engine.run(requests(0, 1500)))
before = used()
assert sum(answer.failure is None for answer in engine.run(requests(1500, 11_500))) == 10_000
after = used()
assert after[0] - before[0] < 8 << 20, (before, after)
assert after[1:] == before[1:], (before, after)
assert engine.free_slots == engine.pool.slots
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_thousand_rows_leave_the_process_as_it_was(model_file: Path) -> None:
    """oneDNN and torch's layer over it keep up to 1,024 products of sizes they have met: here none of them."""
    bare = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1", "LRU_CACHE_CAPACITY": "1"}
    program = [sys.executable, "-c", LONG_RUN, str(model_file)]
    done = subprocess.run(program, cwd=ROOT, env={**os.environ, **bare}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
