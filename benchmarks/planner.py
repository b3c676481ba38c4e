"""How well the planner predicts and chooses on this machine, as a report in Markdown.

    python -m benchmarks.planner                 # everything, after a full calibration: twelve minutes on two cores
    python -m benchmarks.planner --quick         # after the quick profile of first use
    python -m benchmarks.planner --search        # only how fast it plans
    python -m benchmarks.planner --only regret   # or planning, predictions, bounds
    python -m benchmarks.planner --only bounds --workload classify   # this workload alone

Predictions: every workload runs once to load and then `--repeats` times, over other texts and below other instructions
each time and without the history, so that nothing is reused or learnt. Answers' lengths are not part of the cost model:
where a workload generates, the prediction is made for the lengths that came. Seconds are those in the engine.
Regret and bounds: see benchmarks/choices.py.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

import torch

from benchmarks.choices import BOUNDED, REGRET, bounds_report, regret_report
from benchmarks.planning import planning_report
from benchmarks.workloads import WORKLOADS, Workload, planned
from dql.config import Config
from dql.estimate import estimate
from dql.executor import admission, calibrate, inquiry, runner
from dql.explaining import modelled
from dql.planner.hardware import cpu_versions
from dql.session import Session
from dql.statements import begin

PARTS = ("planning", "predictions", "regret", "bounds")
NAMES = tuple(dict.fromkeys(workload.name for workload in (*WORKLOADS, *REGRET, *BOUNDED)))


@dataclass(frozen=True, slots=True)
class Line:
    """One workload's figures: seconds predicted before the run, predicted for what came, and measured."""

    name: str
    plan: str
    before: float
    predicted: float
    measured: Sequence[float]

    @property
    def seconds(self) -> float:
        return statistics.median(self.measured)

    @property
    def error(self) -> float:
        return abs(self.predicted / self.seconds - 1)


def main() -> None:
    """Run and print a report in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the profile of first use instead of a full calibration")
    parser.add_argument("--cpu-seconds", action="store_true", help="CPU time of one thread, on a shared machine")
    parser.add_argument("--search", action="store_true", help="only time planning")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts alone")
    parser.add_argument("--workload", metavar="NAME", choices=NAMES, action="append", help="these workloads alone")
    options = parser.parse_args()
    print("\n".join(heading(options)), flush=True)
    if options.cpu_seconds:
        torch.set_num_threads(1)
        for module in (admission, calibrate, inquiry, runner):
            setattr(module, "perf_counter", process_time)  # noqa: B010
    with session_of(options.model) as session:
        began = perf_counter()
        shape = session.registry.resolve(session.model).shape
        session.machine.measure(session.runtime, [shape], thorough=not (options.quick or options.search))
        print(f"Calibrated in {perf_counter() - began:.1f} s.\n", flush=True)
        for part in ["planning"] if options.search else options.only or PARTS:
            print("\n".join(report(part, session, options)), flush=True)
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"Took {(perf_counter() - began) / 60:.1f} minutes; load averages at the end {load}.")


def report(part: str, session: Session, options: argparse.Namespace) -> list[str]:
    """One part of the report; nothing where none of its workloads was asked for."""
    if part == "planning":
        return planning_report(session)
    known = {"predictions": WORKLOADS, "regret": REGRET, "bounds": BOUNDED}[part]
    workloads = [workload for workload in known if workload.name in (options.workload or NAMES)]
    if not workloads:
        return []
    match part:
        case "predictions":
            return predictions_report(session, workloads, options.repeats)
        case "regret":
            return regret_report(session, workloads)
    return bounds_report(session, workloads)


@contextmanager
def session_of(model: str) -> Iterator[Session]:
    """A session with the user's models, and a history and profile of its own."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").symlink_to(Config.load().models_dir)
        with Session(config=replace(Config.load(), home=home, model=model)) as session:
            session.registry.pull(model)
            yield session


def heading(options: argparse.Namespace) -> list[str]:
    """What was measured on what."""
    clock = "CPU seconds of one thread" if options.cpu_seconds else "wall clock"
    profile = "quick profile" if options.quick else "full calibration"
    return [
        f"# The planner on this machine, {options.model}",
        "",
        f"{cpu_versions(0)['cpu']}, {os.cpu_count()} cores; {clock}; {profile}.",
        "",
    ]


def predictions_report(session: Session, workloads: Sequence[Workload], repeats: int) -> list[str]:
    """Predicted beside measured seconds of these workloads."""
    lines = []
    for workload in workloads:
        line = run_one(session, workload, repeats)
        print(f"{line.name}: {line.predicted:.2f} s predicted, {line.seconds:.2f} s measured", file=sys.stderr)
        lines.append(line)
        session.config.runs_file.unlink(missing_ok=True)
    errors = sorted(line.error for line in lines)
    p90 = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    return [
        f"## Predicted and measured seconds, medians of {repeats} runs",
        "",
        "| workload | batch × chunk | predicted before | predicted for what came | measured | ratio |",
        "|---|---|---|---|---|---|",
        *(
            f"| {line.name} | {line.plan} | {line.before:.2f} s | {line.predicted:.2f} s | {line.seconds:.2f} s "
            f"| {line.predicted / line.seconds:.2f} |"
            for line in lines
        ),
        "",
        f"Median error {statistics.median(errors):.0%}, p90 {p90:.0%} over {len(lines)} workloads.",
        "",
    ]


def run_one(session: Session, workload: Workload, repeats: int) -> Line:
    """Plan and run one workload; the first run loads the model and is not counted."""
    measured: list[float] = []
    predicted: list[float] = []
    before, chosen = 0.0, ""
    for repeat in range(repeats + 1):
        query, around = planned(session, workload, seed=repeat)
        if repeat == 0:
            found = estimate(query, session, {})
            assert found.choice is not None
            before, place = found.choice.best.cost.seconds, found.choice.best.placement
            chosen = f"{place.max_rows} × {place.step_tokens}"
        run, found = begin(query, around)
        for _ in run.batches():
            pass
        if repeat:
            assert found.choice is not None
            measured.append(sum(m.seconds for m in run.context.measured.values()))
            parts = [modelled(found.choice, out, m) for out, m in run.context.measured.items()]
            predicted.append(sum(part or 0.0 for part in parts))
    return Line(workload.name, chosen, before, statistics.median(predicted), measured)


if __name__ == "__main__":
    main()
