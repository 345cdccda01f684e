"""Which positions of which rows a forward pass covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The positions of a forward pass over `[batch, width]` tokens.

    Column c of row r holds the token at position `starts[r] + c` of that row. Negative positions are padding
    on the left; positions from `ends[r]` on are padding on the right. Padding is never changed.
    """

    starts: tuple[int, ...]
    width: int
    ends: tuple[int, ...] | None = None
    """One past each row's last position; None: no padding on the right."""

    @classmethod
    def whole(cls, n_rows: int, width: int) -> Window:
        """Rows of `width` tokens each, from their first position, without padding."""
        return cls((0,) * n_rows, width)

    @classmethod
    def padded(cls, attention_mask: Int[Tensor, "batch pos"]) -> Window:
        """Rows padded on either side (not in the middle), 1 for tokens."""
        mask = attention_mask.to("cpu").bool()
        n_tokens: Sequence[int] = mask.sum(dim=1).tolist()
        first: Sequence[int] = mask.int().argmax(dim=1).tolist()
        return cls(tuple(-column for column in first), int(mask.shape[1]), tuple(n_tokens))

    def position(self, row: int, column: int) -> int | None:
        """Return the position in a column of a row, None for padding."""
        position = self.starts[row] + column
        is_padding = position < 0 or (self.ends is not None and position >= self.ends[row])
        return None if is_padding else position
