"""The labels of a Score task as a token tree, so that a row's labels are scored in the pass that reads its prompt.

A label's score is the log-probability of its tokens and end mark. Every label has exactly one first token after the
prompt, so the vocabulary's normaliser at that place is common to all labels and cancels in the softmax over them: only
the label rows of the LM head are computed there. After a label's first token the normalisers differ by label and the
whole vocabulary counts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.models.head import LogitHead
from dql.executor.models.tiles import rowwise
from dql.executor.transfer import to_device


@dataclass(frozen=True, slots=True, eq=False)
class LabelTree:
    """Inner tokens of the tree (those that others follow) are fed after the prompt; edges are scored.

    tokens int32 [inner], depths int64 [inner] (1 for a first token), visible bool [inner, inner]: which inner tokens
    each one sees, itself included. edge_parents int64 [edges]: 0 for the prompt's end, else 1 + inner token;
    edge_tokens int64 [edges]; membership float32 [edges, labels].
    """

    tokens: NDArray[np.int32]
    depths: NDArray[np.int64]
    visible: NDArray[np.bool_]
    edge_parents: NDArray[np.int64]
    edge_tokens: NDArray[np.int64]
    membership: NDArray[np.float32]

    def log_probs(self, hidden: torch.Tensor, head: LogitHead) -> torch.Tensor:
        """hidden [rows, 1 + inner, hidden_size], the prompt's end first → log-softmax over labels [rows, labels]."""
        (scores,) = rowwise(lambda rows: (self._log_probs(rows, head),), head.tile, hidden)
        return scores

    def _log_probs(self, hidden: torch.Tensor, head: LogitHead) -> torch.Tensor:
        rows, places, width = hidden.shape
        device = hidden.device
        distinct, column = np.unique(self.edge_tokens, return_inverse=True)
        logits = head.rows(hidden.reshape(rows * places, width), to_device(distinct, device)).float()
        parents = to_device(self.edge_parents, device)
        edges = logits.view(rows, places, -1)[:, parents, to_device(column, device)]
        if places > 1:
            inner = head.logsumexp(hidden[:, 1:].reshape(-1, width)).float().view(rows, places - 1)
            normalisers = torch.cat([inner.new_zeros(rows, 1), inner], dim=1)
            edges = edges - normalisers[:, parents]
        scores = edges @ to_device(self.membership, device)
        return torch.log_softmax(scores, dim=-1)


def label_tree(labels: tuple[tuple[int, ...], ...]) -> LabelTree:
    """The tree of `labels`, each a non-empty tuple of token ids that ends in the end mark."""
    places: dict[tuple[int, ...], int] = {(): 0}  # inner prefix → 0 for the prompt's end, else 1 + inner token
    edges: dict[tuple[int, ...], int] = {}
    for label in labels:
        for end in range(1, len(label) + 1):
            edges.setdefault(label[:end], len(edges))
            if end < len(label):
                places.setdefault(label[:end], len(places))
    inner = [prefix for prefix in places if prefix]
    visible = np.zeros((len(inner), len(inner)), np.bool_)
    membership = np.zeros((len(edges), len(labels)), np.float32)
    for prefix in inner:
        for end in range(1, len(prefix) + 1):
            visible[places[prefix] - 1, places[prefix[:end]] - 1] = True
    for column, label in enumerate(labels):
        for end in range(1, len(label) + 1):
            membership[edges[label[:end]], column] = 1.0
    return LabelTree(
        tokens=np.array([prefix[-1] for prefix in inner], np.int32),
        depths=np.array([len(prefix) for prefix in inner], np.int64),
        visible=visible,
        edge_parents=np.array([places[prefix[:-1]] for prefix in edges], np.int64),
        edge_tokens=np.array([prefix[-1] for prefix in edges], np.int64),
        membership=membership,
    )
