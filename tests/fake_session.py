"""A session whose model answers by rules that a reader can follow, and that notes every prompt it was asked.

The files, tokenizer, chat template and prompts are those of the tiny model; only the engine is not real:

    generate    the user's message itself, "[system] " before it where there is one, cut at `stop` and `max_tokens`;
                a model other than the session's puts its name before it, a sampled answer a number after it
    classify    the first label that the text contains, else the last label
    filter      whether the statement's last word occurs earlier in it: '{body} mentions refund'; asked whether a label
                fits a text, whether the text contains it
    score       the low end and one point more for each ! in the text, as far as the scale goes

The label chosen has the probability 0.75, the others share the rest. The model `other` is in doubt where the text says
perhaps: it takes the last label, at 0.6. In another precision than fp32 every model is so where it says roughly, and
says it Roughly. Where an answer has been begun, it goes on from there; so it judges one that is given.
"""

import re
from collections.abc import Generator, Iterable
from dataclasses import replace
from hashlib import blake2b
from math import log
from pathlib import Path

import numpy as np

from dql.config import Config
from dql.executor.answers import answer
from dql.executor.engine import Engine
from dql.executor.options import Counters, EngineOptions, Pace
from dql.executor.placed import options_for
from dql.executor.progress import Tracker
from dql.executor.requests import Answer, Failure, Follow, Generate, Request, Score, Tokens
from dql.executor.rows import refusal
from dql.executor.runtime import Runtime
from dql.history import History, RunRecord
from dql.machine import Machine
from dql.models import Model
from dql.models.shape import ModelShape
from dql.planner.hardware import Hardware, Progress, cpu_versions
from dql.planner.option import REFERENCE
from dql.planner.physical import Placement
from dql.session import Session
from tests.planner.fake_models import small_cpu

_START, _END = 1, 2  # control ids of the tiny model: <|im_start|>, <|im_end|>
_TEXT = re.compile(r"\A(?:[A-Z]\w+: )?(.*?)(?:\n\w+:)?\s*\Z", re.DOTALL)  # "Text: … \nLabel:" in the frame's last part
_FITS = re.compile(r"The label '(.*?)'.* fits the text: (.*)", re.DOTALL)
CHOSEN, DOUBTFUL = 0.75, 0.6


class FakeEngine(Engine):
    """Answers requests in order; `asked` are the texts of all messages of each prompt."""

    def __init__(self, model: Model, speaker: str, *, exact: bool = True) -> None:
        self.asked: list[str] = []
        self.counters = Counters()
        self._model = model
        self.speaker = speaker
        self.exact = exact
        self._draws = 0

    def run(
        self,
        requests: Iterable[Request],
        *,
        pace: Pace | None = None,
        kv_slots: int | None = None,
        row_timeout: float | None = None,
        deterministic: bool = False,
        prefix: bool = True,
        reuse: bool = True,
        logprobs: bool = True,
        draft: Engine | None = None,
        draft_slots: int | None = None,
    ) -> Generator[Answer]:
        """One answer per request; those that a real engine refuses are refused. "endless" rows run until a timeout."""
        for request in requests:
            shape = self._model.shape
            if failure := refusal(request.tokens, request.task, shape.context_length, shape.vocab_size):
                none = np.empty(0, np.int32), np.empty(0, np.float32)
                yield Answer(request.id, *none, prompt_tokens=len(request.tokens), failure=failure)
                continue
            messages = self._messages(request.tokens)
            self.asked.append("\n".join(messages.values()))
            if row_timeout is not None and "endless" in messages["user"]:
                overdue = Failure("timeout", f"no answer within {row_timeout:g} s", retryable=True)
                yield answer(request.id, prompt_tokens=len(request.tokens), failure=overdue)
                continue
            if isinstance(request.task, Follow):
                yield self._follow(request, request.task, messages)
                continue
            does = self._generate if isinstance(request.task, Generate) else self._score
            yield does(request, messages)

    def _messages(self, tokens: Tokens) -> dict[str, str]:
        """Text by role. Only control ids part the messages, so data that spells them stays data."""
        starts, ends = np.flatnonzero(tokens == _START), np.flatnonzero(tokens == _END)
        if not len(starts):  # one running text
            return {"user": self._model.tokenizer.decode_batch([tokens])[0]}
        assert len(starts) == len(ends) + 1, "a control token came out of data"
        texts = self._model.tokenizer.decode_batch([tokens[a + 1 : b] for a, b in zip(starts, ends, strict=False)])
        return {role: body for role, _, body in (text.partition("\n") for text in texts)}

    def _generate(self, request: Request, messages: dict[str, str]) -> Answer:
        task = request.task
        assert isinstance(task, Generate)
        text = self.speaker + (f"[{messages['system']}] " if "system" in messages else "") + messages["user"]
        if task.sampling.temperature > 0:
            self._draws += 1
            text += f" #{self._draws if task.sampling.seed is None else digest(f'{task.sampling.seed} {text}')}"
        text = re.split("|".join(map(re.escape, task.stop_texts)), text, maxsplit=1)[0] if task.stop_texts else text
        text = text if self.exact else text.replace("roughly", "Roughly")
        ids = self._model.tokenizer.encode_data([text])[0][self._begun(request.tokens) :]
        cut = ids[: task.max_tokens]
        scores = np.full(len(cut), log(CHOSEN), np.float32)
        finish = "length" if len(ids) > len(cut) else "stop"
        return Answer(request.id, cut, scores, finish=finish, prompt_tokens=len(request.tokens))

    def _follow(self, request: Request, task: Follow, messages: dict[str, str]) -> Answer:
        """At every place it ranks the token of its own answer first, whatever was given before."""
        own = self._generate(replace(request, task=Generate(4096)), messages).tokens.tolist()
        best = [*own, _END, *([_END] * len(task.tokens))][: len(task.tokens)]
        size = self._model.shape.vocab_size
        told = np.full((len(best), size), log((1 - CHOSEN) / (size - 1)), np.float32)
        told[np.arange(len(best)), best] = log(CHOSEN)
        given = told[np.arange(len(best)), task.tokens]
        count, whole = len(request.tokens) + len(best) - 1, told if task.whole else None
        return Answer(request.id, np.array(best, np.int32), given, prompt_tokens=count, distributions=whole)

    def _begun(self, tokens: Tokens) -> int:
        """How many tokens of its answer the model is given."""
        starts = np.flatnonzero(tokens == _START)
        header = self._model.tokenizer.encode_data(["assistant\n"])[0]
        return len(tokens) - int(starts[-1]) - 1 - len(header) if len(starts) else 0

    def _score(self, request: Request, messages: dict[str, str]) -> Answer:
        assert isinstance(request.task, Score)
        found = _TEXT.search(messages["user"].rpartition("\n\n")[2])
        assert found is not None
        labels = self._model.tokenizer.decode_batch([np.array(label) for label in request.task.labels])
        chosen, share = self.chosen(found[1], [label.strip() for label in labels])
        scores = np.full(len(labels), log((1 - share) / (len(labels) - 1)), np.float32)
        scores[chosen] = log(share)
        return Answer(request.id, np.empty(0, np.int32), scores, prompt_tokens=len(request.tokens))

    def chosen(self, text: str, labels: list[str]) -> tuple[int, float]:
        """The number of the label that it chooses, and how probable it finds it."""
        doubts = ("roughly" in text and not self.exact) or (self.speaker == "other: " and "perhaps" in text)
        return (len(labels) - 1, DOUBTFUL) if doubts else (choose(text, labels), CHOSEN)


def choose(text: str, labels: list[str]) -> int:
    """The number of the label that fits the text."""
    if labels == ["Yes", "No"]:
        if fits := _FITS.fullmatch(text):
            return 0 if fits[1] in fits[2] else 1
        *words, last = re.findall(r"\w+", text.lower()) or [""]
        return 0 if last in words else 1
    if all(label.lstrip("-").isdecimal() for label in labels):
        return min(text.count("!"), len(labels) - 1)
    return next((i for i, label in enumerate(labels) if label in text), len(labels) - 1)


def digest(text: str) -> int:
    """A number below 100 that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) % 100


class FakeSession(Session):
    """A session on the tiny model's file with fake engines; `asked` are the prompts of all statements so far."""

    def __init__(self, home: Path, model: Path) -> None:
        super().__init__(config=Config(home=home, model=str(model), threads=1))
        self.machine = Machine(self.config, find=lambda: ())  # the same plans whatever GPU is here
        self._fake = FakeRuntime(self)

    @property
    def runtime(self) -> Runtime:
        return self._fake

    @property
    def options(self) -> list[EngineOptions]:
        """How real engines would have been loaded, in order."""
        return self._fake.options

    def engine(self, name: str) -> FakeEngine:
        """The engine of a model that was asked before; a test may change what it says."""
        return self._fake.engines[name]

    @property
    def asked(self) -> list[str]:
        return [text for engine in self._fake.engines.values() for text in engine.asked]


def quick_below(session: Session, *lower: str, times: float = 3) -> None:
    """Let the machine's profile say that it runs these precisions so many times as fast as fp32."""
    half = small_cpu().operators["fp32"]
    shape = session.registry.resolve(session.model).shape
    sizes = f"{shape.hidden_size}x{shape.query_size}x{shape.kv_size}x{shape.intermediate_size}"
    figures = replace(
        small_cpu(),
        peak={"fp32": 2e7, **dict.fromkeys(lower, times * 2e7)},
        versions=cpu_versions(session.config.num_threads),
        operators={f"{precision}{size}": half for precision in ("fp32", *lower) for size in ("", f" {sizes}")},
    )
    session.machine.path.parent.mkdir(parents=True, exist_ok=True)
    session.machine.path.write_text(figures.to_json())


class NoHistory(History):
    def record(self, run: RunRecord) -> None:
        """Runs of fake engines teach nothing."""


class FakeRuntime(Runtime):
    def __init__(self, session: Session) -> None:
        super().__init__(session.registry, session.catalog, 1)
        self.engines: dict[str, FakeEngine] = {}
        self.options: list[EngineOptions] = []  # that real engines would be loaded with
        self._default = session.config.model

    def measure(self, base: Hardware, shape: ModelShape, *, thorough: bool, progress: Progress | None) -> Hardware:
        return base  # an engine that computes nothing has no speed

    def engine(
        self, name: str, placement: Placement, tracker: Tracker, sharing: int = 1, beside: Engine | None = None
    ) -> Engine:
        exact = placement.weights == placement.kv_cache == REFERENCE[placement.device]
        key = name if exact else f"{name} in {placement.weights} with {placement.kv_cache} KV"
        if key not in self.engines:
            speaker = "" if name == self._default else f"{name}: "
            model = self.model(name, tracker)
            self.options.append(options_for(model.shape, placement, sharing))
            self.engines[key] = self.made(model, speaker, placement, exact=exact)
        return self.engines[key]

    def made(self, model: Model, speaker: str, placement: Placement, *, exact: bool) -> FakeEngine:
        """A new engine; another kind of runtime makes others."""
        return FakeEngine(model, speaker, exact=exact)
