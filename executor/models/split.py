"""Tokens of one step in two precisions, each through matrices of its own.

A token's precision is its own, whatever stands beside it, so that neither batches nor steps decide what it becomes.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, Self, TypeVar

import torch

from dql.executor.models.tiles import rowwise


class Twofold(Protocol):
    """Something that work is done with; precise: what takes its place for precise tokens, None where nothing does."""

    @property
    def precise(self) -> Self | None: ...


T = TypeVar("T", bound=Twofold)


class Split:
    """Which tokens of a step are precise."""

    def __init__(self, precise: torch.Tensor | None, tokens: int) -> None:
        """precise int64 [n]: their places among so many tokens."""
        self._mask: torch.Tensor | None = None
        if precise is not None and len(precise):
            self._mask = torch.zeros(tokens, dtype=torch.bool)
            self._mask[precise] = True
            self._places = self._mask.nonzero()[:, 0], (~self._mask).nonzero()[:, 0]
            self._back = torch.cat(self._places).argsort()

    def at(self, places: torch.Tensor) -> "Split":
        """The split of the tokens at these places alone."""
        return self if self._mask is None else Split(self._mask[places].nonzero()[:, 0], len(places))

    def over(
        self, layer: T, work: Callable[..., tuple[torch.Tensor, ...]], tile: int | None, *inputs: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """work(layer, *inputs), row by row as `rowwise` has it, with layer.precise for precise tokens.

        What the work leaves in its inputs is lost where some tokens are precise.
        """
        if self._mask is None or layer.precise is None:
            return rowwise(partial(work, layer), tile, *inputs)
        done = [
            rowwise(partial(work, one), tile, *(x[places] for x in inputs))
            for one, places in zip((layer.precise, layer), self._places, strict=True)
            if len(places)
        ]
        return tuple(torch.cat(parts)[self._back] for parts in zip(*done, strict=True))
