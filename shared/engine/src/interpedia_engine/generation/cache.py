"""Keys and values of rows that join and leave, in memory that is taken once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache

_ROUND = 64


class RowCache(Cache):
    """Keys and values as rows of a rectangle: slot × position, both from 0, without padding on the left.

    A slot's tokens start at position 0, so rows of different lengths need no alignment; what lies behind a
    row's length is old and must be masked, which needs finite numbers (`erase`). The rectangle's shape
    changes with what is needed (`reserve`), its memory does not. Layers take their memory at their first
    token, on their own device.

    Before each forward pass, `next_decode` or `next_prompt` says where its tokens go.
    """

    def __init__(self, max_tokens: int) -> None:
        super().__init__(layers=[])
        self._max_tokens = max_tokens
        self.n_slots = 0
        self.n_positions = 0
        self._memory: dict[int, tuple[Tensor, Tensor]] = {}
        self._slots: slice = slice(0, 0)
        self._offset = 0
        self._lengths: list[int] | None = None
        self._index: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def reserve(self, n_slots: int, n_positions: int, lengths: Sequence[int]) -> None:
        """Make the rectangle at least so large, keeping the first `lengths[s]` tokens of each slot.

        The caller checks that `n_slots · n_positions` is at most the memory.
        """
        if n_slots <= self.n_slots and n_positions <= self.n_positions:
            return
        rounded = min(-(-n_positions // _ROUND) * _ROUND, self._max_tokens // n_slots)
        kept = {layer: [self._saved(flat, lengths) for flat in pair] for layer, pair in self._memory.items()}
        self.n_positions = rounded
        self.n_slots = self._max_tokens // rounded
        for layer, pair in self._memory.items():
            for flat, rows in zip(pair, kept[layer], strict=True):
                view = self._view(flat)
                for slot, row in enumerate(rows):
                    view[slot, :, : row.shape[1]] = row

    def next_prompt(self, first_slot: int, n_rows: int, offset: int) -> None:
        """The next pass computes prompt tokens of `n_rows` slots, from position `offset` on."""
        self._slots = slice(first_slot, first_slot + n_rows)
        self._offset = offset
        self._lengths = None

    def next_decode(self, lengths: Sequence[int]) -> None:
        """The next pass computes one token for each of the first slots, behind its `lengths[slot]` tokens."""
        self._slots = slice(0, len(lengths))
        self._offset = max(lengths)
        self._lengths = list(lengths)
        self._index = {}

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` tokens to another slot."""
        for pair in self._memory.values():
            for flat in pair:
                view = self._view(flat)
                view[target, :, :length] = view[source, :, :length]

    def erase(self, slot: int, length: int) -> None:
        """Overwrite a slot with zeros: masked keys that are not finite would still spoil a later row."""
        for pair in self._memory.values():
            for flat in pair:
                self._view(flat)[slot, :, :length] = 0.0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any
    ) -> tuple[Float[Tensor, "rows heads kv d"], Float[Tensor, "rows heads kv d"]]:
        """Store a layer's new keys and values; return all that the pass attends to."""
        if layer_idx not in self._memory:
            self._memory[layer_idx] = (self._take(key_states), self._take(value_states))
        keys, values = self._memory[layer_idx]
        return self._stored(keys, key_states), self._stored(values, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the position of the pass's first token."""
        del layer_idx  # all layers hold the same tokens
        return self._offset

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return the position of the pass's first token."""
        del layer_idx  # all layers hold the same tokens
        return self._offset

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return how many positions the pass attends to, from 0."""
        del layer_idx  # all layers hold the same tokens
        return self._offset + query_length, 0

    def _stored(self, flat: Tensor, new: Float[Tensor, "rows heads n d"]) -> Float[Tensor, "rows heads kv d"]:
        view = self._view(flat)[self._slots]
        end = self._offset + new.shape[2]
        if self._lengths is None or min(self._lengths) == self._offset:
            view[:, :, self._offset : end] = new
            return new if self._offset == 0 else view[:, :, :end]
        rows, positions = self._where(new.device)
        view[rows, :, positions] = new[:, :, 0]
        return view[:, :, :end]

    def _where(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._index:
            positions = torch.tensor(self._lengths, dtype=torch.int64, device=device)
            self._index[device] = torch.arange(len(positions), device=device), positions
        return self._index[device]

    def _take(self, like: Float[Tensor, "rows heads n d"]) -> Float[Tensor, "tokens heads_d"]:
        _, n_heads, _, width = like.shape
        # Zeros, not whatever is there: masked positions are multiplied by a weight of zero.
        flat = torch.zeros(self._max_tokens, n_heads * width, dtype=like.dtype, device=like.device)
        return flat.view(self._max_tokens, n_heads, width)

    def _view(self, flat: Tensor) -> Float[Tensor, "slots heads positions d"]:
        _, n_heads, width = flat.shape
        used = flat.view(-1)[: self.n_slots * n_heads * self.n_positions * width]
        return used.view(self.n_slots, n_heads, self.n_positions, width)

    def _saved(self, flat: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Take the slots' tokens out; what stayed would lie anywhere in a rectangle of another shape."""
        view = self._view(flat)
        saved = [view[slot, :, :length].clone() for slot, length in enumerate(lengths)]
        view[: len(saved)] = 0.0
        return saved
