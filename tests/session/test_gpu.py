"""Queries on a machine that shows a GPU: what is planned and how engines would be loaded. One test needs a GPU."""

import ctypes
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import torch

from dql.config import Config
from dql.doctor import examine
from dql.errors import ConfigError, UnsupportedError
from dql.executor.memory import plan_memory
from dql.executor.options import EngineOptions
from dql.executor.placed import free_cuda, options_for, roomy
from dql.machine import Machine, usable_devices
from dql.planner import devices
from dql.planner.devices import Device, cuda_devices, this_gpu
from dql.planner.hardware import Hardware, hardware_named
from dql.planner.physical import Placement
from dql.session import Session
from tests.fake_session import FakeSession
from tests.planner.fake_models import SHAPES

H100 = Device("NVIDIA H100 80GB HBM3", (9, 0), 85_000_000_000, 227 << 10, 132, 1.98e9, 3.35e12)
A100 = replace(H100, name="NVIDIA A100-SXM4-80GB", capability=(8, 0), shared=163 << 10)
GENERATE = "GENERATE 'Say {body}' AS said FROM t"


@pytest.fixture
def gpu(session: FakeSession) -> FakeSession:
    """A session that sees two H100s; `t` has thirty rows."""
    session.machine = Machine(session.config, find=lambda: (H100, H100))
    session.catalog.register("t", pa.table({"body": [f"text {i}" for i in range(30)]}))
    return session


def plan(session: FakeSession, text: str) -> str:
    return "\n".join(str(line) for line in session.query(text).arrow().column(0).to_pylist())


def test_a_query_uses_the_gpu_and_explain_says_so(gpu: FakeSession) -> None:
    text = plan(gpu, f"EXPLAIN {GENERATE}")
    assert "bf16 weights" in text and "bf16 KV" in text and "parallel" not in text and "replicas" not in text
    assert "hardware: NVIDIA H100 80GB HBM3 · datasheet figures of h100; 1 of 2 GPUs is used" in text
    assert gpu.query(GENERATE).arrow().num_rows == 30
    (options,) = gpu.options
    assert (options.device, options.weights, options.kv_cache, options.kv_share) == ("cuda", "bf16", "bf16", 1.0)


@pytest.mark.parametrize(
    ("settings", "weights", "kv_cache"),
    [("kv_cache = 'fp8'", "bf16", "fp8"), ("quantization = 'fp8'", "fp8", "bf16"), ("batch_size = 8", "bf16", "bf16")],
)
def test_what_is_pinned_reaches_the_engine(gpu: FakeSession, settings: str, weights: str, kv_cache: str) -> None:
    gpu.query(f"{GENERATE} WITH {settings}").arrow()
    assert [(o.device, o.weights, o.kv_cache) for o in gpu.options] == [("cuda", weights, kv_cache)]


def test_calls_that_cannot_be_counted_run_there_too(gpu: FakeSession) -> None:
    assert "bf16 weights" in plan(gpu, "EXPLAIN SELECT AI_GENERATE('Say {x}') AS said FROM (SELECT random() AS x)")
    gpu.query("CREATE SEQUENCE s")
    gpu.query("SELECT AI_GENERATE('Say {x}') AS said FROM (SELECT nextval('s')::VARCHAR AS x)").arrow()
    assert [o.device for o in gpu.options] == ["cuda"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("deterministic = true", "deterministic = true runs on the CPU"),
        ("quantization = 'fp32'", "quantization = fp32 runs on the CPU"),
        ("kv_cache = 'fp32'", "kv_cache = fp32 runs on the CPU"),
        ("quality >= 0.9 OF 'fp32'", "quality OF 'fp32' is measured on the CPU"),
    ],
)
def test_what_only_the_cpu_does_runs_there(gpu: FakeSession, settings: str, why: str) -> None:
    text = plan(gpu, f"EXPLAIN {GENERATE} WITH {settings}")
    assert "fp32" in text and "bf16" not in text and f"not on the GPU: {why}" in text
    gpu.query(f"{GENERATE} WITH {settings}").arrow()
    assert [(o.device, o.weights, o.kv_cache) for o in gpu.options] == [("cpu", "fp32", "fp32")]


def test_several_devices_are_planned_for_elsewhere_only(gpu: FakeSession) -> None:
    for name in ("devices", "tensor_parallel", "pipeline_parallel"):
        with pytest.raises(UnsupportedError, match=f"{name} = 2, and a query runs on 1 device"):
            gpu.query(f"{GENERATE} WITH {name} = 2").arrow()
    assert "tensor parallel 2" in plan(gpu, f"EXPLAIN (ON 'h100:2') {GENERATE} WITH tensor_parallel = 2")


def test_two_models_divide_the_memory(gpu: FakeSession) -> None:
    gpu.query("SELECT AI_GENERATE('Say {body}') AS a, AI_GENERATE('Say {body}', model => 'other') AS b FROM t").arrow()
    assert [o.kv_share for o in gpu.options] == [0.5, 0.5]


def test_a_model_that_no_kernel_runs_is_loaded_on_the_cpu() -> None:
    place = Placement(weights="bf16", kv_cache="fp8", device="cuda", max_rows=512, step_tokens=64)
    assert options_for(replace(SHAPES["smollm2"], generic=True), place) == EngineOptions()
    found = options_for(SHAPES["llama-8b"], place, sharing=2)
    wanted = {"device": "cuda", "weights": "bf16", "kv_cache": "fp8", "max_rows": 512, "step_tokens": 8192}
    assert found == EngineOptions(**wanted, kv_share=0.5)  # type: ignore[arg-type]


def test_a_share_of_the_memory_is_that_share() -> None:
    whole = EngineOptions(device="cuda", weights="bf16", kv_cache="bf16")
    halves = [plan_memory(SHAPES["llama-8b"], replace(whole, kv_share=share), 40 << 30).kv for share in (1.0, 0.5)]
    assert halves[0] == pytest.approx(2 * halves[1], rel=1e-6)
    with pytest.raises(ConfigError, match="kv_share"):
        EngineOptions(kv_share=0.0)


def test_others_make_room_where_keys_of_a_step_do_not_fit() -> None:
    options = options_for(SHAPES["llama-8b"], Placement(weights="bf16", kv_cache="bf16", device="cuda"), sharing=2)
    plan = plan_memory(SHAPES["llama-8b"], options, 80 << 30)
    least = plan.weights + plan.activations + options.step_tokens * plan.kv // plan.slots
    found = [roomy(SHAPES["llama-8b"], options, free) for free in (80 << 30, least, plan.weights, 0)]
    assert found == [True, False, False, False]


def test_the_gpu_is_listed_before_the_cpu(gpu: FakeSession) -> None:
    first, second, *_ = gpu.query("SHOW HARDWARE").arrow().to_pylist()
    assert (first["name"], first["kind"], first["source"]) == (H100.name, "cuda", "datasheet")
    assert first["here"] and second["here"] and second["kind"] == "cpu"


def test_a_device_that_the_kernels_do_not_run_on_is_left_alone(session: FakeSession) -> None:
    session.machine = Machine(session.config, find=lambda: (A100,))
    assert session.machine.hardware().kind == "cpu"
    (first, *_) = session.query("SHOW HARDWARE").arrow().to_pylist()
    assert "A100-SXM4-80GB is not used: its compute capability is 8.0" in first["notes"]
    assert "101 KiB of shared memory" in (replace(H100, capability=(12, 0), shared=101 << 10).lacks or "")


def gpu_of(device: Device) -> Hardware:
    found = this_gpu((device,), 4)
    assert found is not None
    return found


def test_figures_are_the_profiles_own_or_scaled() -> None:
    h100 = hardware_named("h100")
    assert gpu_of(H100).peak == h100.peak and gpu_of(H100).memory < H100.memory
    half = gpu_of(replace(H100, name="NVIDIA H100 PCIe", processors=66, bandwidth=2e12))
    assert half.peak["bf16"] == pytest.approx(h100.peak["bf16"] / 2) and half.bandwidth == 2e12
    assert gpu_of(replace(H100, name="another", processors=66, bandwidth=0.0)).bandwidth == h100.bandwidth / 2
    assert this_gpu((), 4) is None


class Driver:
    """CUDA's driver library as far as it is asked."""

    ATTRIBUTES: ClassVar = {75: 9, 76: 0, 97: 227 << 10, 16: 132, 13: 1_980_000, 36: 2_619_000, 37: 5120}

    def __init__(self, count: int, broken: bool = False) -> None:
        self._count, self._broken = count, broken

    def cuInit(self, flags: int) -> int:
        return 100 if self._count == 0 else 0  # CUDA_ERROR_NO_DEVICE

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 999 if self._broken else 0

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:
        name.value = H100.name.encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = H100.memory
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, handle: Any) -> int:
        value._obj.value = self.ATTRIBUTES[number]
        return 0


def with_driver(monkeypatch: pytest.MonkeyPatch, driver: object) -> None:
    def load(name: str) -> object:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    names = ("byref", "c_int", "c_size_t", "create_string_buffer")
    fake = SimpleNamespace(CDLL=load, **{name: getattr(ctypes, name) for name in names})
    monkeypatch.setattr(devices, "ctypes", fake)


def test_devices_are_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, Driver(2))
    found = cuda_devices()
    assert len(found) == 2 and replace(found[0], bandwidth=0.0) == replace(H100, bandwidth=0.0)
    assert found[0].bandwidth == pytest.approx(3.35e12, rel=0.01)
    for none in (Driver(0), Driver(1, broken=True), object(), None):  # hidden, failing, another library, no library
        with_driver(monkeypatch, none)
        assert cuda_devices() == ()


def test_the_doctor_says_what_queries_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(has_cuda: bool, *found: Device) -> list[str]:
        monkeypatch.setattr("dql.doctor.cuda_devices", lambda: found)
        monkeypatch.setattr("dql.doctor.torch_has_cuda", lambda: has_cuda)
        return [finding.value for finding in examine({}) if finding.name == "queries run on" and not finding.problem]

    assert shown(True) == []
    assert shown(True, H100, H100) == ["NVIDIA H100 80GB HBM3 (1 of 2)"]
    assert "is not used: its compute capability" in shown(True, A100)[0]
    assert "built without CUDA" in shown(False, H100)[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU")
def test_a_gpu_that_torch_cannot_use_is_an_error_with_a_way_out() -> None:
    with pytest.raises(UnsupportedError) as caught:
        free_cuda()
    assert "CUDA_VISIBLE_DEVICES=" in (caught.value.hint or "")


@pytest.mark.gpu
def test_a_query_runs_on_the_gpu(model_file: Path, tmp_path: Path) -> None:
    if this_gpu(usable_devices(), 1) is None:
        pytest.skip("no GPU that dql's kernels run on")
    with Session(config=Config(home=tmp_path, model=str(model_file))) as session:
        session.catalog.register("t", pa.table({"body": [f"text {i}" for i in range(30)]}))
        assert session.query(f"{GENERATE} WITH max_tokens = 4").arrow().column("said").null_count == 0
        assert [engine.options.device for engine in session.runtime._engines.values()] == ["cuda"]
