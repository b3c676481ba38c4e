"""Work for the engine that meets every part of the Triton path, and what an engine answers to it.

As a program, in a process where Triton interprets its kernels:

    TRITON_INTERPRET=1 python -m tests.executor.triton_work MODEL ANSWERS.json [KV_CACHE | guesses]
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from dql.executor.decode_graphs import Recorded
from dql.executor.draft import DraftModel
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Follow, Generate, Request, Sampling, Score, Task
from dql.executor.triton_backend import TritonBackend
from dql.models import open_model

Found = dict[str, tuple[list[int], list[float], str]]  # by request: tokens, log-probabilities, finish

LABELS = ((5, 2), (6, 7, 2), (6, 8, 2), (9,))
LONG = 10  # tokens from which a run is long, here


def requests(*, few: bool = False) -> list[Request]:
    """Scores, greedy and seeded draws below an instruction, a group's text below that, and two tokens below that; and
    given tokens judged behind the first of these prompts. few: the scores and one draw alone."""
    draw = np.random.default_rng(5)

    def text(length: int) -> list[int]:
        return [int(token) for token in draw.integers(3, 150, length)]

    instruction, groups, twins = text(17), [text(7), text(9)], text(2)
    prompts = [instruction + groups[i % 2] + (twins if i % 4 < 2 else []) + text(1 + 3 * i % 7) for i in range(8)]
    prompts += [text(1), text(LONG + 5), text(15)]
    sampling = Sampling(temperature=1.2, top_k=30, top_p=0.9, min_p=0.01, seed=3)
    tasks: list[Task] = [Score(LABELS), Generate(3), Generate(3, sampling=sampling), Generate(4, frozenset(range(90)))]
    found = [Request(i, np.array(prompt, np.int32), tasks[i % 4]) for i, prompt in enumerate(prompts)]
    if few:
        return [request for request in found if request.id == 1 or isinstance(request.task, Score)]
    given = [Follow(tuple(text(length))) for length in (1, 6, LONG + 5)]
    return found + [Request(len(found) + i, found[i].tokens, task) for i, task in enumerate(given)]


@contextmanager
def small(*, interpreted: bool) -> Iterator[None]:
    """Runs are long, and worth a product of their own, from sizes that a slow interpreter can bear.

    Steps of decoding rows alone run from a graph at once; interpreted, they run as they would from one: padded, over
    buffers at fixed addresses.
    """
    modules = ("step", "scheduler", "cpu_attention", "triton_attention")
    with mock.patch.multiple("dql.planner.prefix", DENSE_ROWS=3, DENSE_TOKENS=5):
        for module in modules:
            mock.patch(f"dql.executor.{module}.LONG_RUN", LONG).start()
        if interpreted:
            mock.patch("dql.executor.triton_backend.recorder", lambda device: lambda run: Recorded(run, 0)).start()
        mock.patch("dql.executor.decode_graphs.SEEN", 0).start()
        mock.patch("dql.kernels.attention.MIN_BLOCKS", 1).start()  # shared runs are split over their keys
        try:
            yield
        finally:
            mock.patch.stopall()


def answers(model: Path, *, device: str = "cpu", kv_cache: str | None = None, few: bool = False) -> Found:
    """What an engine with small steps and few lanes answers, so that rows are cut, wait, and begin at odd times."""
    with small(interpreted=device == "cpu"):
        opened = open_model(model, name="tiny", uri="tiny")
        held = "fp32" if device == "cpu" else "bf16"
        options = EngineOptions(
            kv_bytes=1 << 20, step_tokens=48, max_rows=6, device=device, weights=held, kv_cache=kv_cache or held
        )
        engine = Engine.load(opened, options)
        found = {
            str(answer.id): (answer.tokens.tolist(), answer.logprobs.tolist(), answer.finish)
            for answer in engine.run(requests(few=few))
            if answer.failure is None
        }
        engine.pool.clear()
        assert engine.free_slots == engine.pool.slots
        if device != "cpu":
            assert isinstance(engine.backend, TritonBackend) and engine.backend.graphs is not None
            assert engine.backend.graphs.reason is None
    return found


def copies() -> list[Request]:
    """Texts that the model goes on repeating, so that what comes next is guessed; drawn greedily and by seed."""
    pairs = ((193, 93), (223, 101))
    tasks = Generate(6), Generate(2, sampling=Sampling(temperature=0.7, seed=3))
    return [
        Request(i, np.array(pair * 6, np.int32), task) for i, (pair, task) in enumerate(zip(pairs, tasks, strict=True))
    ]


def guessed(model: Path, ways: Sequence[str] = ("none", "own text", "draft")) -> Found:
    """Answers to `copies` with guesses made in these ways, by way and request, and by way the tokens that were proposed
    and accepted. The draft is the model itself, taken to cost nothing."""
    found: Found = {}
    opened = open_model(model, name="tiny", uri="tiny")
    with (
        small(interpreted=True),
        mock.patch("dql.executor.engine.DraftModel", lambda d, cost, n: DraftModel(d, 0.0, n)),
    ):
        draft = Engine.load(opened, EngineOptions(kv_bytes=1 << 20))
        for way in ways:
            options = EngineOptions(kv_bytes=1 << 20, step_tokens=48, max_rows=6, speculate=way != "none")
            engine = Engine.load(opened, options)
            for answer in engine.run(copies(), draft=draft if way == "draft" else None):
                found[f"{way} {answer.id}"] = answer.tokens.tolist(), answer.logprobs.tolist(), answer.finish
            found[way] = [engine.counters.proposed, engine.counters.accepted], [], ""
        assert draft.free_slots == draft.pool.slots
    return found


def main() -> None:
    model, found, *more = sys.argv[1:]
    if more == ["guesses"]:
        told = guessed(Path(model), ("own text", "draft"))
    else:
        told = answers(Path(model), kv_cache=more[0], few=True) if more else answers(Path(model))
    Path(found).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
