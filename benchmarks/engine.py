"""The engine's bars on a GPU: token ids in and out, an 8B Llama's shape, random weights.

    python -m benchmarks.engine [--device cuda] [--only WORD] [--json]

Ceilings first, in the same run: the rate of a copy and of large products. Then every workload of engine_cases on dql,
its figure beside its bar and its anchor, then transformers' continuous batching on the same rows, where transformers
is installed. Beside it torch, triton, numpy, tokenizers, safetensors and jinja2 are all that it imports. Speed does not
depend on the weights' values. `--shape tiny --scale 32 --device cpu` tries the program, and measures nothing.
"""

import argparse
import gc
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from benchmarks.engine_cases import AGAINST_TRANSFORMERS, ALONE, CONFIGS, WORKLOADS, Sizes, Workload, prompts, requests
from benchmarks.kernel_cases import decode, linear
from benchmarks.kernels import RESULTS, Ceilings, measure, measure_ceilings
from dql.errors import DqlError
from dql.executor.decode_graphs import ROWS
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.triton_backend import TritonBackend
from dql.kernels.language import triton
from dql.models import Model, open_model


@dataclass(frozen=True, slots=True)
class Line:
    """One measured figure. note: why there is none, or what else to know."""

    name: str
    weights: str
    figure: float | None
    unit: str
    bar: float
    anchor: str
    note: str = ""

    def __str__(self) -> str:
        found = "–" if self.figure is None else f"{self.figure:,.2f}" if self.figure < 100 else f"{self.figure:,.0f}"
        bar = f"{self.bar:,g}"
        return f"| {self.name} | {self.weights} | {found} {self.unit} | {bar} | {self.anchor} | {self.note} |"


class Bench:
    """One run: a model shape on a device."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(CONFIGS[options.shape]))
        self.model: Model = open_model(path, name=options.shape, uri=str(path))
        self.device, self.scale, self.repeats = options.device, options.scale, options.repeats
        self.ceilings = measure_ceilings() if self.on_gpu else None
        self._seed = 0

    @property
    def on_gpu(self) -> bool:
        return str(self.device).startswith("cuda")

    def workload(self, engine: Engine, workload: Workload) -> Line:
        """Median figure over the repeats, after a run that compiles and records whatever the shapes need."""
        sizes, figures = workload.sizes.scaled(self.scale), []
        for turn in range(self.repeats + 1):
            prefill = self._seconds(engine, sizes, new=1) if workload.against_prefill else 0.0
            figure = workload.figure(sizes, self._seconds(engine, sizes), prefill)
            if turn:
                figures.append(figure)
        found, note = median(figures), _graphs(engine)
        if workload.name == ALONE:
            moved = self._weight_bytes() * found
            note = f"{found:,.0f} tok/s{note and '; '}{note}"
            found = moved / self.ceilings.bandwidth if self.ceilings else float("nan")
        return Line(workload.name, engine.options.weights, found, workload.unit, workload.bar, workload.anchor, note)

    def against_transformers(self, engine: Engine) -> Line:
        """dql's rows a second over those of transformers' continuous batching, on equal rows in the same process."""
        try:
            from benchmarks.engine_peer import continuous_batching  # transformers, which the other lines do without
        except ImportError as error:
            return Line("against transformers", engine.options.weights, None, "×", 3, "same run", str(error))
        sizes = AGAINST_TRANSFORMERS.scaled(self.scale)
        self._seconds(engine, sizes)
        own = median(self._seconds(engine, sizes) for _ in range(self.repeats))
        engine.pool.clear()
        theirs = continuous_batching(
            self.model.shape, torch.device(self.device), prompts(sizes, self.model.shape.vocab_size, seed=0), sizes.new
        )
        note = f"{sizes.rows / own:,.1f} against {sizes.rows / theirs:,.1f} rows/s"
        return Line("against transformers", engine.options.weights, theirs / own, "×", 3, "same run", note)

    def engine(self, weights: str) -> Engine:
        """An engine with random weights; off the GPU everything runs in fp32, and the lines say so."""
        rows = max(workload.sizes.rows for workload in WORKLOADS)
        options = EngineOptions(
            device=self.device,
            weights=weights if self.on_gpu else "fp32",
            kv_cache="bf16" if self.on_gpu else "fp32",
            step_tokens=8192 if self.on_gpu else 1024,
            max_rows=min(ROWS[-1], rows),
            kv_bytes=None if self.on_gpu else 1 << 24,
            context=2048,
            load_format="dummy",
        )
        return Engine.load(self.model, options)

    def _seconds(self, engine: Engine, sizes: Sizes, *, new: int | None = None) -> float:
        self._seed += 1
        work = requests(sizes, self.model.shape.vocab_size, seed=self._seed, new=new)
        engine.pool.clear()
        began = perf_counter()
        failed = [answer.failure for answer in engine.run(work) if answer.failure is not None]
        seconds = perf_counter() - began
        if failed:
            raise RuntimeError(f"{len(failed)} rows failed: {failed[0].message}")
        return seconds

    def _weight_bytes(self) -> int:
        """Read for one token: every matrix and the LM head."""
        shape = self.model.shape
        return (shape.matmul_parameters + shape.embedding_parameters) * (2 if self.on_gpu else 4)


def lines(bench: Bench, only: str) -> Iterator[Line]:
    """All lines whose name holds `only`, precision by precision, so that one engine is loaded at a time."""
    for weights in dict.fromkeys(workload.weights for workload in WORKLOADS):
        chosen = [w for w in WORKLOADS if w.weights == weights and only in w.name]
        beside = weights == "bf16" and only in "against transformers"
        if not chosen and not beside:
            continue
        try:
            engine = bench.engine(weights)
        except DqlError as error:
            yield from (Line(w.name, weights, None, w.unit, w.bar, w.anchor, error.message) for w in chosen)
            continue
        for workload in chosen:
            yield bench.workload(engine, workload)
        if beside:
            yield bench.against_transformers(engine)
        del engine
        gc.collect()
        if bench.on_gpu:
            torch.cuda.empty_cache()
    if bench.ceilings is not None:
        yield from _kernels(bench.ceilings, only)


def _kernels(ceilings: Ceilings, only: str) -> Iterator[Line]:
    if only in "fp8 skinny GEMM 4096 × 12288, 16 rows":
        took = measure(linear("fp8", 16, 4096, 12288), ceilings).microseconds
        yield Line("fp8 skinny GEMM 4096 × 12288, 16 rows", "fp8", took, "µs", 20, "best engine 23, floor 15")
    if only in "decode attention, 128 × 1k":
        share = measure(decode(128, 1024, False), ceilings).bandwidth_share
        yield Line("decode attention, 128 × 1k", "bf16", share, "of bandwidth", 0.85, "FA3 2.8 TB/s")


def _graphs(engine: Engine) -> str:
    backend = engine.backend
    if not isinstance(backend, TritonBackend) or backend.graphs is None or backend.graphs.reason is None:
        return ""
    return f"without graphs: {backend.graphs.reason}"


def _versions(bench: Bench) -> dict[str, str]:
    device = torch.cuda.get_device_name() if bench.on_gpu else platform.processor() or "cpu"
    found = {"device": device, "python": platform.python_version(), "torch": torch.__version__}
    return found if triton is None else {**found, "triton": triton.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=CONFIGS, default="llama-8b")
    parser.add_argument("--scale", type=int, default=1, help="divide all sizes, to try the program")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="workloads whose name contains this word")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        about = {**_versions(bench), "date": time.strftime("%Y-%m-%d"), "shape": options.shape, "scale": options.scale}
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        if bench.ceilings is not None:
            rates = ", ".join(f"{kind} {rate / 1e12:.0f} TFLOP/s" for kind, rate in bench.ceilings.flops.items())
            print(f"copy {bench.ceilings.bandwidth / 1e9:.0f} GB/s, {rates}")
        print("| what | weights | measured | bar | anchor | |\n|---|---|---|---|---|---|")
        found = []
        for line in lines(bench, options.only):
            print(line, flush=True)
            found.append(line)
    if options.json:
        ceilings = asdict(bench.ceilings) if bench.ceilings is not None else None
        path = RESULTS / f"{about['date']}-engine-{str(about['device']).replace(' ', '-').lower()}.json"
        written = {**about, "ceilings": ceilings, "lines": [asdict(line) for line in found]}
        path.write_text(json.dumps(written, indent=1) + "\n")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
