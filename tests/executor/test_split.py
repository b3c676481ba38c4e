"""int8 on the CPU: what prompts begin with has the keys of the higher precision, to the bit, in every batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dql.executor.backend import CpuBackend
from dql.executor.block_pool import BlockPool
from dql.executor.engine import Engine
from dql.executor.models.decoder import Decoder
from dql.executor.models.linear_int8 import Int8Linear
from dql.executor.models.tiles import TILE
from dql.executor.options import EngineOptions
from dql.executor.quantize import above, layout, prepared
from dql.executor.requests import Follow, Generate, Request, Score, Task, Tokens
from dql.executor.rows import plan_window
from dql.executor.step import Segment, StepBuilder
from dql.executor.weights import open_weights
from dql.models import Model, open_model
from dql.planner.hardware import cpu_precisions
from dql.planner.memory import matrix_bytes
from dql.planner.physical import Placement
from tests.models.tiny import TinySizes, tiny_model

CPU = torch.device("cpu")
LABELS = ((5, 2), (6, 7, 2), (9,))
BEGINNING = 40
pytestmark = pytest.mark.skipif("int8" not in cpu_precisions(), reason="the processor has no int8")


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


@pytest.fixture(scope="module")
def engine(model: Model) -> Engine:
    return Engine.load(model, EngineOptions(kv_bytes=1 << 20, weights="int8"))


def prompts(count: int, seed: int = 5) -> list[Tokens]:
    draw = np.random.default_rng(seed)
    shared = np.random.default_rng(1).integers(3, 250, BEGINNING)
    return [np.concatenate((shared, draw.integers(3, 250, 3 + i))).astype(np.int32) for i in range(count)]


def run(decoder: Decoder, pool: BlockPool, tokens: Tokens, start: int = 0, precise: int = 0) -> None:
    """Store the keys of a text's tokens from `start` on, whose first so many are precise, above those stored before."""
    builder = StepBuilder()
    builder.add_segment(Segment(tokens[start:], start, start, start, (), None, precise=precise))
    with torch.inference_mode():
        CpuBackend(decoder.tiled(TILE), pool, invariant=True).forward(builder.build(), lambda: False)


def stored(pool: BlockPool, start: int, end: int) -> bytes:
    return b"".join(x[start:end].numpy().tobytes() for cache in pool.caches for x in (cache.k, cache.v))


def test_beginnings_have_the_keys_of_the_higher_precision_and_rows_those_of_int8(tmp_path: Path) -> None:
    model = open_model(tiny_model(tmp_path, TinySizes(layers=3)), name="tiny", uri="tiny")
    int8, weights, text = layout("int8", CPU), open_weights(model), prompts(1)[0]
    higher = above(weights, int8)
    assert higher is not None
    rough = Decoder(model.shape, prepared(weights, model, int8), context=128, layout=int8)
    both = Decoder(model.shape, prepared(weights, model, int8), context=128, layout=int8, precise=higher)
    precise = Decoder(model.shape, weights, context=128, layout=higher[1])
    split, whole, cut, coarse = (BlockPool(model.shape, 64, torch.float32, CPU) for _ in range(4))
    run(both, split, text, precise=BEGINNING)
    run(precise, whole, text)
    assert stored(split, 0, BEGINNING) == stored(whole, 0, BEGINNING)
    assert stored(split, BEGINNING, len(text)) != stored(whole, BEGINNING, len(text))
    run(rough, coarse, text)
    assert stored(split, 0, BEGINNING) != stored(coarse, 0, BEGINNING)
    run(precise, cut, text[:BEGINNING])
    run(rough, cut, text, BEGINNING)  # int8 above the keys of the other
    assert stored(split, 0, len(text)) == stored(cut, 0, len(text))


@pytest.mark.parametrize("task", [Score(LABELS), Generate(4), Follow((5, 6, 7))])
def test_answers_depend_on_no_sharing_and_no_neighbours(engine: Engine, task: Task) -> None:
    asked = [Request(i, p, replace(task, precise=BEGINNING)) for i, p in enumerate(prompts(9))]
    alone = {a.id: a for one in asked for a in engine.run([one], deterministic=True)}
    for prefix in (True, False):
        engine.pool.clear()
        # other rows begin alike and have another count: they share nothing with these
        others = [Request(100 + i, p, replace(task, precise=BEGINNING - 9)) for i, p in enumerate(prompts(9))]
        found = {a.id: a for a in engine.run([*asked, *others], deterministic=True, prefix=prefix)}
        for i in range(9):
            assert found[i].tokens.tolist() == alone[i].tokens.tolist()
            assert found[i].logprobs.tobytes() == alone[i].logprobs.tobytes()
        assert any(found[i].logprobs.tobytes() != found[100 + i].logprobs.tobytes() for i in range(9))


def test_rows_share_with_those_of_the_same_count(engine: Engine) -> None:
    rows = prompts(9)
    asked = [Request(i, rows[i // 2], Score(LABELS, precise=(0, BEGINNING)[i % 2])) for i in range(18)]
    window = plan_window(asked, [], 512, 500)
    assert len(window.rows) == 18  # equal prompts, and not the same question
    assert sorted((node.start, node.end, node.rows, node.precise) for node in window.nodes if node.dense) == [
        (0, BEGINNING, 9, 0),
        (0, BEGINNING, 9, BEGINNING),
    ]
    engine.pool.clear()
    assert all(answer.failure is None for answer in engine.run(asked))
    assert sorted(resident.precise for resident in engine.pool.residents) == [0, BEGINNING]


def test_only_int8_on_the_cpu_asks_for_it() -> None:
    assert Placement(weights="int8").splits
    assert not any(
        place.splits for place in (Placement(), Placement(weights="bf16"), Placement(weights="int8", device="cuda"))
    )


def test_both_sets_of_matrices_are_held_and_in_the_memory_plan(model: Model, engine: Engine) -> None:
    assert isinstance(engine.model, Decoder)
    for layer in engine.model._layers:
        assert layer.precise is not None and isinstance(layer.qkv, Int8Linear)
        assert layer.precise.o is layer.o and layer.precise.down is layer.down
    shape = model.shape
    below_norms = shape.hidden_size * (shape.query_size + 2 * shape.kv_size + 2 * shape.intermediate_size)
    others = shape.hidden_size * (shape.query_size + shape.intermediate_size)
    for bf16, wide in ((True, 2), (False, 4)):
        held = shape.num_layers * (below_norms * (1 + wide) + others * wide)
        assert held <= matrix_bytes(shape, "int8", "cpu", bf16=bf16) < 1.05 * held
