"""From requests to rows of work: what cannot run is refused, equal requests become one row, and rows get an order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dql.executor.block_pool import Resident
from dql.executor.following import Followed
from dql.executor.label_tree import LabelTree, label_tree
from dql.executor.prefix_tree import Node, build_tree
from dql.executor.requests import Answer, Embed, Failure, Follow, Generate, Request, Score, Task, Tokens

_NO_TOKENS = np.empty(0, np.int32)
_NO_SCORES = np.empty(0, np.float32)


@dataclass(slots=True, eq=False)
class Row:
    """One prompt to run, for every request that asks for the same.

    The prompt's tokens are: those of dense nodes (up to `dense_end`), those of short nodes (up to `start`), its own.
    Tokens given to Follow are prompt, and never shared, but for the last, which is not read.
    """

    ids: list[int]
    tokens: Tokens
    task: Task
    parent: Node | None = None
    dense_parent: Node | None = None
    start: int = 0
    dense_end: int = 0
    labels: LabelTree | None = None
    outputs: int = 1  # last tokens of the prompt whose hidden states are wanted
    followed: list[Followed] = field(default_factory=list)  # what became of given tokens, step by step
    done: int = 0  # own tokens whose keys and values are stored
    computed: int = 0  # prompt tokens computed on this row's account, those of nodes it came first to included
    admitted_at: float = 0.0
    first_at: float = 0.0  # when its first token was drawn

    @property
    def own(self) -> int:
        """Tokens of the prompt that no other row shares."""
        return len(self.tokens) - self.start

    @property
    def decodes(self) -> bool:
        """Whether the row draws tokens after its prompt."""
        return isinstance(self.task, Generate)

    @property
    def tail(self) -> int:
        """Label tokens fed after the prompt."""
        return 0 if self.labels is None else len(self.labels.tokens)

    @property
    def lane(self) -> int:
        """Slots that a decoding row takes: short shared tokens (copied), own tokens, new tokens but the last."""
        new = self.task.max_tokens - 1 if isinstance(self.task, Generate) else 0
        return len(self.tokens) - self.dense_end + new

    def path(self) -> list[Node]:
        """All nodes above this row, outermost first."""
        return [] if self.parent is None else self.parent.path()

    def short_nodes(self) -> list[Node]:
        """The nodes above this row that it reads together with its own tokens, outermost first."""
        return [node for node in self.path() if not node.dense]

    def unshare(self) -> None:
        """Make all tokens the row's own, none of them stored yet."""
        self.parent = self.dense_parent = None
        self.start = self.dense_end = self.done = 0
        self.followed.clear()

    def answers(
        self,
        *,
        tokens: Tokens = _NO_TOKENS,
        logprobs: NDArray[np.float32] = _NO_SCORES,
        finish: str = "stop",
        seconds: float = 0.0,
        first: float = 0.0,
        passes: int = 0,
        vector: NDArray[np.float32] | None = None,
        failure: Failure | None = None,
        distributions: NDArray[np.float32] | None = None,
    ) -> list[Answer]:
        """One answer for each request of the row; of equal requests only the first had its prompt computed."""
        length = len(self.tokens)
        return [
            Answer(
                id=request_id,
                tokens=tokens,
                logprobs=logprobs,
                vector=vector,
                finish=finish,
                prompt_tokens=length,
                cached_tokens=length - (self.computed if index == 0 else 0),
                seconds=seconds,
                first_seconds=first,
                passes=passes,
                failure=failure,
                distributions=distributions,
            )
            for index, request_id in enumerate(self.ids)
        ]


@dataclass(slots=True)
class Window:
    """Rows in the order they should run, and the answers of requests that need no run or cannot have one."""

    rows: list[Row] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    settled: list[Answer] = field(default_factory=list)


def plan_window(
    requests: Sequence[Request],
    residents: Sequence[Resident],
    context: int,
    vocab_size: int,
    *,
    prefix: bool = True,
    reuse: bool = True,
) -> Window:
    """Rows of one window of requests: with their prefix tree where `prefix`, equal ones as one row where `reuse`."""
    window = Window()
    by_work: dict[tuple[bytes, Task], Row] = {}
    trees: dict[tuple[tuple[int, ...], ...], LabelTree] = {}
    for request in requests:
        tokens = np.ascontiguousarray(request.tokens, dtype=np.int32)
        failure = refusal(tokens, request.task, context, vocab_size)
        if failure is not None or not _asks_anything(request.task):
            count = len(tokens)
            finish = "length" if failure is None and isinstance(request.task, Generate) else "stop"
            answer = Answer(request.id, _NO_TOKENS, _NO_SCORES, None, finish, count, count, failure=failure)
            window.settled.append(answer)
            continue
        key = (tokens.tobytes(), request.task)
        if reuse and is_function(request.task) and key in by_work:
            by_work[key].ids.append(request.id)
            continue
        row = Row([request.id], tokens, request.task)
        if isinstance(request.task, Follow):
            given = request.task.tokens
            row.tokens, row.outputs = np.concatenate((tokens, np.array(given[:-1], np.int32))), len(given)
        if isinstance(request.task, Score):
            labels = request.task.labels
            if labels not in trees:
                trees[labels] = label_tree(labels)
            row.labels = trees[labels]
        by_work[key] = row
        window.rows.append(row)
    if prefix:
        _share(window, residents)
    else:
        window.rows.sort(key=lambda row: (row.decodes, -size_class(row.lane + row.tail)))
    return window


def is_function(task: Task) -> bool:
    """Whether equal prompts must get equal answers, so that one run serves them all."""
    if not isinstance(task, Generate):
        return True
    return task.sampling.temperature <= 0 or task.sampling.seed is not None


def _asks_anything(task: Task) -> bool:
    """False for no new tokens and for no labels: the answer is empty whatever the model says."""
    match task:
        case Generate():
            return task.max_tokens > 0
        case Score():
            return bool(task.labels)
        case Follow():
            return bool(task.tokens)
    return True


def refusal(tokens: Tokens, task: Task, context: int, vocab_size: int, *, encoder: bool = False) -> Failure | None:
    """Why a request cannot run whatever the batch, or None."""
    if isinstance(task, Embed) != encoder:
        does = "embeds text and neither generates nor scores" if encoder else "generates text and has no embeddings"
        return Failure("engine", f"this model {does}")
    labels = _given(task)
    if len(tokens) == 0 or any(len(label) == 0 for label in labels):
        return Failure("engine", "a prompt or a label has no tokens")
    new = task.max_tokens if isinstance(task, Generate) else max((len(label) for label in labels), default=1) - 1
    if len(tokens) + new > context:
        more = "" if encoder else f" and {new} more"
        return Failure("too_long", f"{len(tokens)} prompt tokens{more} exceed the context of {context} tokens")
    lowest, highest = int(tokens.min()), int(tokens.max())
    for label in labels:
        lowest, highest = min(lowest, *label), max(highest, *label)
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        return Failure("engine", f"token id {wrong} lies outside the model's vocabulary of {vocab_size}")
    return None


def _given(task: Task) -> tuple[tuple[int, ...], ...]:
    """Texts that a task brings with it, as token ids."""
    if isinstance(task, Follow):
        return (task.tokens,) if task.tokens else ()
    return task.labels if isinstance(task, Score) else ()


def _share(window: Window, residents: Sequence[Resident]) -> None:
    """Hang the rows below their nodes, and sort them: by task, by dense run, long ones first, then as in the tree."""
    in_trees = [row for precise in _counts(window.rows) for row in _hung(window, residents, precise)]
    places = {id(node): place for place, node in enumerate(window.nodes)}
    keys: list[tuple[bool, int, int]] = []
    for row in in_trees:
        for node in row.path():
            node.waiting += 1
            row.start = node.end
            if node.dense:
                row.dense_parent, row.dense_end = node, node.end
        dense = -1 if row.dense_parent is None else places[id(row.dense_parent)]
        keys.append((row.decodes, dense, -size_class(row.lane + row.tail)))
    by_key = sorted(range(len(keys)), key=keys.__getitem__)
    window.rows = [in_trees[place] for place in by_key]


def _counts(rows: Sequence[Row]) -> list[int]:
    """How many tokens rows begin with in a higher precision, each count once: they share what they compute alike."""
    return sorted({row.task.precise for row in rows})


def _hung(window: Window, residents: Sequence[Resident], precise: int) -> list[Row]:
    """The rows with so many precise tokens below the nodes of their tree, which are added, and in its order."""
    rows = [row for row in window.rows if row.task.precise == precise]
    tree = build_tree(
        [row.tokens[: len(row.tokens) + 1 - row.outputs] for row in rows],
        [resident for resident in residents if resident.precise == precise],
    )
    for node in tree.nodes:
        node.precise = precise
    for row, parent in zip(rows, tree.parents, strict=True):
        row.parent = parent
    window.nodes += tree.nodes
    return [rows[rank] for rank in tree.order.tolist()]


def size_class(slots: int) -> int:
    """Rows of one class share a slab: classes are eighths of powers of two, at least 8 slots wide."""
    step = max(8, 1 << max(0, slots.bit_length() - 3))
    return -(-slots // step) * step
