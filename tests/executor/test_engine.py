"""The engine on the tiny model: what a batch, its order, its memory and its interruption must not change."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dql.errors import ConfigError, OutOfMemoryError
from dql.executor.engine import Engine
from dql.executor.memory import plan_memory
from dql.executor.models.decoder import Decoder
from dql.executor.options import EngineOptions
from dql.executor.requests import Answer, Embed, Generate, Request, Sampling, Score, Task, Tokens
from dql.models import Model, open_model

LABELS = ((5, 2), (6, 7, 2), (6, 8, 2), (9,))
SLOT_BYTES = 2 * 2 * 2 * 8 * 4  # keys and values, layers, kv heads, head size, float32
SHARED = np.arange(40, 80, dtype=np.int32)


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


@pytest.fixture(scope="module")
def engine(model: Model) -> Engine:
    """Small steps and few lanes, so that a handful of rows meets every border."""
    return load(model, step_tokens=48, max_rows=5, window=7)


def load(
    model: Model, *, slots: int = 4096, step_tokens: int = 1024, max_rows: int = 256, window: int = 4096
) -> Engine:
    options = EngineOptions(kv_bytes=slots * SLOT_BYTES, step_tokens=step_tokens, max_rows=max_rows, window=window)
    return Engine.load(model, options)


def prompt(seed: int, length: int, shared: int = 0) -> Tokens:
    own = np.random.default_rng(seed).integers(3, 250, length)
    return np.concatenate((SHARED[:shared], own)).astype(np.int32)


def answers(engine: Engine, requests: list[Request]) -> dict[int, Answer]:
    found = {answer.id: answer for answer in engine.run(requests)}
    assert found.keys() == {request.id for request in requests}
    return found


def assert_same(left: Answer, right: Answer) -> None:
    assert (left.failure, left.finish, left.tokens.tolist()) == (right.failure, right.finish, right.tokens.tolist())
    np.testing.assert_allclose(left.logprobs, right.logprobs, atol=1e-4)


tasks = st.one_of(
    st.integers(1, 9).map(Generate),
    st.builds(Generate, st.integers(1, 9), st.just(frozenset(range(0, 250, 3)))),
    st.builds(Generate, st.integers(1, 9), sampling=st.builds(Sampling, st.just(1.5), seed=st.integers(0, 3))),
    st.permutations(LABELS).map(lambda labels: Score(tuple(labels[:3]))),
)
prompts = st.builds(prompt, st.integers(0, 5), st.sampled_from([1, 2, 3, 17, 60, 120]), st.sampled_from([0, 3, 40]))
settings.register_profile(
    "engine",
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@settings(settings.get_profile("engine"), max_examples=15)
@given(st.lists(st.tuples(prompts, tasks), max_size=24))
def test_a_batch_answers_as_its_rows_one_by_one(engine: Engine, work: list[tuple[Tokens, Task]]) -> None:
    requests = [Request(i, tokens, task) for i, (tokens, task) in enumerate(work)]
    together = answers(engine, requests)
    for request in requests:
        engine.pool.clear()
        alone = answers(engine, [request])
        assert_same(together[request.id], alone[request.id])
    assert engine.free_slots == engine.pool.slots


@dataclass
class Pacing:
    """Sizes that change whenever a step reads them."""

    sizes: list[tuple[int, int]]

    @property
    def max_rows(self) -> int:
        self.sizes = [*self.sizes[1:], self.sizes[0]]
        return self.sizes[0][0]

    @property
    def step_tokens(self) -> int:
        return self.sizes[0][1]


@settings(settings.get_profile("engine"), max_examples=15)
@given(
    st.lists(st.tuples(prompts, tasks), max_size=20),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 60)), min_size=1, max_size=5),
)
def test_sizes_may_change_before_every_step(
    engine: Engine, work: list[tuple[Tokens, Task]], sizes: list[tuple[int, int]]
) -> None:
    requests = [Request(i, tokens, task) for i, (tokens, task) in enumerate(work)]
    expected = answers(engine, requests)
    found = {answer.id: answer for answer in engine.run(requests, pace=Pacing(sizes))}
    assert found.keys() == expected.keys()
    for id, answer in found.items():
        assert_same(answer, expected[id])
        assert 0 < answer.first_seconds <= answer.seconds
    assert engine.free_slots == engine.pool.slots - sum(r.block.length for r in engine.pool.residents)


@pytest.mark.parametrize(("prefix", "reuse"), [(False, True), (True, False), (False, False)])
def test_what_is_not_shared_is_computed_again(model: Model, prefix: bool, reuse: bool) -> None:
    engine = load(model)
    requests = [Request(i, prompt(i // 2, 6, shared=40), Score(LABELS) if i % 3 else Generate(3)) for i in range(24)]
    expected = answers(engine, requests)
    engine.pool.clear()
    before, tokens = replace(engine.counters), sum(len(r.tokens) for r in requests)
    for answer in engine.run(requests, prefix=prefix, reuse=reuse):
        assert_same(answer, expected[answer.id])
    computed = engine.counters.prefilled - before.prefilled
    assert (engine.counters.duplicates - before.duplicates > 0) == reuse
    assert computed == tokens if not (prefix or reuse) else 0 < computed < tokens


def test_fewer_rows_at_once_leave_the_lanes_of_more_empty(model: Model) -> None:
    """A run that begins with eight rows at once and goes on with two keeps to two."""
    engine, pace = load(model), Pacing([(8, 256)])
    running = engine.run((Request(i, prompt(i, 4), Generate(1 + i % 9)) for i in range(40)), pace=pace)
    next(running)
    pace.sizes = [(2, 256)]
    before, rows = replace(engine.counters), sum(1 for _ in running)
    decoded, steps = engine.counters.decoded - before.decoded, engine.counters.steps - before.steps
    assert rows == 39 and decoded <= 2 * steps + 8 * 9


@settings(settings.get_profile("engine"), max_examples=15)
@given(st.lists(st.tuples(prompts, tasks), max_size=16), st.integers(130, 400), st.integers(1, 70), st.integers(1, 9))
def test_little_memory_and_small_steps_change_nothing(
    model: Model, engine: Engine, work: list[tuple[Tokens, Task]], slots: int, step_tokens: int, max_rows: int
) -> None:
    """Rows that fit a pool at all are answered; the others say that they do not, and nothing hangs or leaks."""
    tight = load(model, slots=slots, step_tokens=step_tokens, max_rows=max_rows, window=5)
    requests = [Request(i, tokens, task) for i, (tokens, task) in enumerate(work)]
    expected = answers(engine, requests)
    for id, answer in answers(tight, requests).items():
        if answer.failure is None:
            assert_same(answer, expected[id])
        else:
            assert answer.failure.kind == "oom"
            assert answer.prompt_tokens + 9 + 8 > slots * 0.75
    assert tight.free_slots == slots


@settings(settings.get_profile("engine"), max_examples=15)
@given(st.lists(st.tuples(prompts, tasks), min_size=1, max_size=16), st.integers(0, 16))
def test_a_run_that_is_closed_early_frees_all(engine: Engine, work: list[tuple[Tokens, Task]], taken: int) -> None:
    running = engine.run(Request(i, tokens, task) for i, (tokens, task) in enumerate(work))
    for _ in zip(range(taken), running, strict=False):
        pass
    running.close()
    assert engine.free_slots == engine.pool.slots


def test_an_error_of_the_input_passes_through_and_frees_all(engine: Engine) -> None:
    def requests() -> Iterator[Request]:
        yield from (Request(i, prompt(i, 20), Generate(5)) for i in range(10))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(engine.run(requests()))
    assert engine.free_slots == engine.pool.slots


def test_cancelling_from_another_thread(engine: Engine) -> None:
    """Every request that was pulled has an answer, finished or cancelled, and the next run is not cancelled."""
    pulled: list[int] = []

    def endless() -> Iterator[Request]:
        while True:
            pulled.append(len(pulled))
            yield Request(pulled[-1], prompt(pulled[-1], 12, shared=40), Generate(30))

    running = engine.run(endless())
    found = [next(running)]
    threading.Thread(target=engine.cancel).start()
    found.extend(running)
    kinds = {answer.failure.kind if answer.failure else None for answer in found}
    assert "cancelled" in kinds and kinds <= {None, "cancelled"}
    assert sorted(answer.id for answer in found) == pulled
    assert engine.free_slots == engine.pool.slots
    assert answers(engine, [Request(0, prompt(0, 5), Generate(3))])[0].failure is None


def test_a_row_that_takes_too_long_fails_alone(engine: Engine) -> None:
    """What is over within the step that it began in has not taken too long; that a row waits does not count."""
    quick = [Request(i, prompt(i, 20, 3), Score(LABELS) if i % 2 else Generate(1)) for i in range(12)]
    slow = [Request(12, prompt(12, 20, 3), Generate(9)), Request(13, prompt(13, 90), Score(LABELS))]
    found = {answer.id: answer for answer in engine.run(quick + slow, row_timeout=1e-9)}
    assert {id for id, answer in found.items() if answer.failure is None} == {request.id for request in quick}
    assert all((f := found[request.id].failure) and f.kind == "timeout" and f.retryable for request in slow)
    assert [a.failure and a.failure.kind for a in engine.run(slow[:1], row_timeout=1e-9)] == ["timeout"]
    assert engine.free_slots == engine.pool.slots
    expected = answers(engine, quick + slow)
    for answer in engine.run(quick + slow, row_timeout=3600):
        assert_same(answer, expected[answer.id])


def test_a_run_may_feed_another(engine: Engine) -> None:
    """The second run pulls from the first while both are under way."""
    first = engine.run(Request(i, prompt(i, 10, shared=40), Generate(4)) for i in range(20))
    chained = engine.run(Request(a.id, np.concatenate((SHARED, a.tokens)), Score(LABELS)) for a in first)
    assert sorted(answer.id for answer in chained if answer.failure is None) == list(range(20))
    assert engine.free_slots == engine.pool.slots


def test_equal_requests_run_once_where_the_result_is_a_function(model: Model) -> None:
    same = prompt(1, 30)
    engine = load(model)
    found = answers(engine, [Request(i, same, Generate(4)) for i in range(6)])
    assert {tuple(answer.tokens) for answer in found.values()} == {tuple(found[0].tokens)}
    assert (engine.counters.prefilled, engine.counters.decoded, engine.counters.duplicates) == (30, 4, 5)
    assert [found[i].cached_tokens for i in range(6)] == [0, 30, 30, 30, 30, 30]

    fresh = Generate(12, sampling=Sampling(temperature=2.0))
    drawn = answers(engine, [Request(i, same, fresh) for i in range(6)])
    assert len({tuple(answer.tokens) for answer in drawn.values()}) > 1
    assert engine.counters.duplicates == 5


def test_a_seed_draws_the_same_in_any_batch_and_another_seed_does_not(engine: Engine) -> None:
    task = Generate(10, sampling=Sampling(temperature=1.0, top_k=40, top_p=0.95, min_p=0.01, seed=11))
    requests = [Request(i, prompt(i, 8, shared=40), task) for i in range(12)]
    drawn = answers(engine, requests)
    again = answers(engine, requests[::-2])
    for id, answer in again.items():
        assert_same(answer, drawn[id])
    other = replace(task, sampling=replace(task.sampling, seed=12))
    moved = answers(engine, [replace(request, task=other) for request in requests])
    assert any(moved[i].tokens.tolist() != drawn[i].tokens.tolist() for i in range(12))


def test_a_shared_prefix_is_computed_once_and_kept_for_the_next_run(model: Model) -> None:
    engine = load(model, window=16)
    requests = [Request(i, prompt(i, 6, shared=40), Generate(2)) for i in range(48)]
    found = answers(engine, requests)
    counters = engine.counters
    assert counters.prefilled < 40 + 48 * 6 + 16
    assert counters.prefilled + counters.reused == 48 * 46
    assert sum(answer.cached_tokens for answer in found.values()) == counters.reused
    before = counters.prefilled
    answers(engine, [Request(0, prompt(99, 6, shared=40), Generate(2))])
    assert counters.prefilled - before == 6


def test_labels_cost_one_pass_and_no_decoding(model: Model) -> None:
    engine = load(model)
    found = answers(engine, [Request(i, prompt(i, 8, shared=40), Score(LABELS)) for i in range(10)])
    assert (engine.counters.steps, engine.counters.decoded, engine.counters.forced) == (1, 0, 10 * 4)
    for answer in found.values():
        assert answer.tokens.size == 0
        np.testing.assert_allclose(np.exp(answer.logprobs).sum(), 1, rtol=1e-5)


def test_stop_ids_and_length(engine: Engine) -> None:
    free = answers(engine, [Request(0, prompt(4, 20), Generate(8))])[0]
    assert (free.finish, len(free.tokens), len(free.logprobs)) == ("length", 8, 8)
    third = int(free.tokens[2])
    stopped = answers(engine, [Request(0, prompt(4, 20), Generate(8, frozenset({third, 1})))])[0]
    first = free.tokens.tolist().index(third)
    assert (stopped.finish, stopped.tokens.tolist()) == ("stop", free.tokens[:first].tolist())


def test_stop_texts_end_a_row_once_its_text_holds_one(engine: Engine, model: Model) -> None:
    free = answers(engine, [Request(0, prompt(6, 20), Generate(12))])[0]
    text = model.tokenizer.decode_batch([free.tokens])[0]
    stop = text[4:6]
    stopped = answers(engine, [Request(0, prompt(6, 20), Generate(12, stop_texts=("\x00never", stop)))])[0]
    kept = model.tokenizer.decode_batch([stopped.tokens])[0]
    assert stopped.finish == "stop"
    assert kept in text and stop in kept and stop not in model.tokenizer.decode_batch([stopped.tokens[:-1]])[0]


@pytest.mark.parametrize(
    ("tokens", "task", "kind", "words"),
    [
        (np.zeros(600, np.int32), Generate(1), "too_long", "context of 512"),
        (np.zeros(510, np.int32), Generate(3), "too_long", "510 prompt tokens and 3 more"),
        (np.zeros(511, np.int32), Score(((5, 6, 2),)), "too_long", "511 prompt tokens and 2 more"),
        (np.zeros(0, np.int32), Generate(3), "engine", "no tokens"),
        (np.array([5, -1], np.int32), Generate(3), "engine", "token id -1"),
        (np.array([5], np.int32), Score(((70000, 2),)), "engine", "token id 70000"),
        (np.array([5], np.int32), Score(((),)), "engine", "no tokens"),
        (np.array([5], np.int32), Embed(), "engine", "embeddings"),
    ],
)
def test_what_cannot_run_is_answered_with_a_failure(
    engine: Engine, tokens: Tokens, task: Task, kind: str, words: str
) -> None:
    found = answers(engine, [Request(0, prompt(0, 3), Generate(2)), Request(1, tokens, task)])
    failure = found[1].failure
    assert found[0].failure is None
    assert failure is not None and failure.kind == kind and words in failure.message


def test_no_tokens_and_no_labels_are_answers(engine: Engine) -> None:
    found = answers(engine, [Request(0, prompt(0, 3), Generate(0)), Request(1, prompt(0, 3), Score(()))])
    assert [(found[i].failure, found[i].tokens.size, found[i].logprobs.size) for i in (0, 1)] == [(None, 0, 0)] * 2
    assert found[0].finish == "length"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["cpu", "cuda", "a kernel's code", "cuBLAS"],
)
def test_a_failed_allocation_halves_the_step_and_loses_nothing(
    model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    requests = [Request(i, prompt(i, 20), Generate(4)) for i in range(8)]
    requests.append(Request(8, prompt(8, 20, shared=40), Generate(4)))
    expected = answers(engine, requests)
    small = load(model, step_tokens=256)
    assert isinstance(small.model, Decoder)
    forward = small.model.forward
    sizes: list[int] = []

    def scarce(tokens, caches, attention):  # type: ignore[no-untyped-def]
        sizes.append(len(tokens.ids))
        if len(tokens.ids) > 30:
            raise error
        return forward(tokens, caches, attention)

    monkeypatch.setattr(small.model, "forward", scarce)
    found = answers(small, requests)
    for id, answer in found.items():
        assert_same(answer, expected[id])
    assert max(sizes) > 128
    assert small.free_slots == small.pool.slots


def test_a_row_for_which_there_is_never_memory_fails_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(model)
    assert isinstance(engine.model, Decoder)
    forward = engine.model.forward

    def scarce(tokens, caches, attention):  # type: ignore[no-untyped-def]
        if (tokens.ids == 249).any():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(tokens, caches, attention)

    monkeypatch.setattr(engine.model, "forward", scarce)
    requests = [Request(i, np.array([5, i, 7], np.int32), Generate(3, frozenset({249}))) for i in range(246, 252)]
    failed = {id for id, answer in answers(engine, requests).items() if answer.failure is not None}
    assert failed == {249}
    assert engine.free_slots == engine.pool.slots


def test_memory_is_reckoned_before_loading(model: Model) -> None:
    with pytest.raises(OutOfMemoryError, match="does not fit: weights") as caught:
        Engine.load(model, EngineOptions(kv_bytes=1 << 50))
    assert "batch_size" in (caught.value.hint or "")
    for free, what in (
        (1 << 10, "the weights alone"),
        (400 << 10, "tokens of a step"),
        (1 << 30, "KV cache to at most"),
    ):
        plan = plan_memory(model.shape, EngineOptions(kv_bytes=1 << 40), free)
        with pytest.raises(OutOfMemoryError) as caught:
            plan.check()
        assert what in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="hold not one token"):
        Engine.load(model, EngineOptions(kv_bytes=7))
    with pytest.raises(ConfigError, match="max_rows must be at least 1"):
        EngineOptions(max_rows=0)
