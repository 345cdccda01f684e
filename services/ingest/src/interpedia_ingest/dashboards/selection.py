"""Which contexts of a corpus a build reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_ingest.dashboards.errors import BadSelection
from interpedia_ingest.dashboards.hashing import Purpose, digest_of, seeded_hash
from interpedia_ingest.dashboards.settings import BATCH_ROWS


@dataclass(frozen=True, slots=True)
class Selection:
    """The contexts of a build in ascending order; a context's place in it is its row."""

    contexts: NDArray[np.uint32]  # [n_rows] row number in the corpus
    tokens: NDArray[np.uint32]  # [n_rows, context_length] token ids, BOS included

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or len(self.tokens) != len(self.contexts):
            raise BadSelection(
                "tokens", f"{len(self.contexts)} contexts need as many rows of ids, not {self.tokens.shape}"
            )
        if len(self.contexts) == 0:
            raise BadSelection("contexts", "at least one context is needed")
        if bool((self.contexts[1:] <= self.contexts[:-1]).any()):
            raise BadSelection("contexts", "they must ascend without repeats")

    @property
    def n_rows(self) -> int:
        """Number of contexts."""
        return len(self.contexts)

    @property
    def context_length(self) -> int:
        """Tokens of a context, BOS included."""
        return self.tokens.shape[1]

    def digest(self, first_row: int, n_rows: int) -> str:
        """SHA-256 of a stretch of rows: context numbers and token ids."""
        part = slice(first_row, first_row + n_rows)
        return digest_of(
            [self.contexts[part].astype("<u4").tobytes(), self.tokens[part].astype("<u4").tobytes()]
        )


def select_contexts(*, n_contexts: int, n_tokens: int, context_length: int, seed: int) -> NDArray[np.uint32]:
    """Choose the contexts with the smallest hash, ascending.

    A larger `n_tokens` gives a superset. All contexts are chosen when the corpus has no more than asked for.

    Args:
        n_contexts: Contexts in the corpus.
        n_tokens: Tokens wanted, BOS included; rounded up to whole contexts.
        context_length: Tokens of a context, BOS included.
        seed: `DashboardSettings.seed`.

    Raises:
        BadSelection: the corpus is empty, or fewer than one token is asked for.
    """
    if n_contexts < 1:
        raise BadSelection("n_contexts", f"the corpus has {n_contexts} contexts")
    if n_tokens < 1:
        raise BadSelection("n_tokens", f"at least 1 is needed, not {n_tokens}")
    wanted = min(n_contexts, -(-n_tokens // context_length))
    hashes = seeded_hash(seed, Purpose.CONTEXT, np.arange(n_contexts))
    return np.sort(np.argpartition(hashes, wanted - 1)[:wanted]).astype(np.uint32)


def shard_ranges(n_rows: int, rows_per_shard: int) -> list[range]:
    """Cut the rows of a selection into shards that begin at multiples of 32; the last one may be shorter."""
    step = max(1, -(-rows_per_shard // BATCH_ROWS)) * BATCH_ROWS
    return [range(first, min(first + step, n_rows)) for first in range(0, n_rows, step)]
