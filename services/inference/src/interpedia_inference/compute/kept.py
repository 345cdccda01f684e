"""Captured activations of the last texts: one text is often asked for feature by feature."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from interpedia_engine.hooks import Hook

Key = tuple[tuple[int, ...], Hook]


class KeptActivations:
    """At most `max_bytes` of activations, those used last. One thread's own; 0 keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()

    def find(self, ids: tuple[int, ...], hooks: Iterable[Hook]) -> dict[Hook, Float[Tensor, "pos d"]] | None:
        """All of the hooks of one text, or None when any is missing."""
        found: dict[Hook, Tensor] = {}
        for hook in hooks:
            value = self._kept.get((ids, hook))
            if value is None:
                return None
            found[hook] = value
        for hook in found:
            self._kept.move_to_end((ids, hook))
        return found

    def keep(self, ids: tuple[int, ...], hook: Hook, value: Float[Tensor, "pos d"]) -> None:
        """Keep one text's activations at one hook; a quarter of the room at most goes to one of them."""
        size = value.numel() * value.element_size()
        if 4 * size > self._max_bytes or (ids, hook) in self._kept:
            return
        # A view would keep its whole batch alive.
        self._kept[ids, hook] = value.clone()
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, old = self._kept.popitem(last=False)
            self._bytes -= old.numel() * old.element_size()
