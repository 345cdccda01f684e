"""The few sparse products that are needed, as typed functions over scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Compressed:
    """A sparse matrix by its major axis: row m owns the slice `offsets[m]:offsets[m + 1]`."""

    offsets: NDArray[np.integer[Any]]  # [n_major + 1]
    minor: NDArray[np.integer[Any]]  # [n]
    values: NDArray[Any]  # [n]
    n_minor: int

    @property
    def n_major(self) -> int:
        """Rows along the major axis."""
        return len(self.offsets) - 1


def transpose(matrix: Compressed) -> Compressed:
    """Swap the axes; minor indices ascend in the result (a counting sort: order is kept)."""
    turned: Any = _csr(matrix).tocsc()
    return Compressed(turned.indptr, turned.indices, turned.data, matrix.n_major)


def stack(blocks: list[Compressed]) -> Compressed:
    """Put matrices of equal `n_minor` below one another."""
    lengths = np.concatenate([np.diff(block.offsets) for block in blocks])
    return Compressed(
        offsets=np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
        minor=np.concatenate([block.minor for block in blocks]),
        values=np.concatenate([block.values for block in blocks]),
        n_minor=blocks[0].n_minor,
    )


def multiply(left: Compressed, right: Compressed) -> NDArray[Any]:
    """Dense product [left.n_major, right.n_minor]; every entry is summed in the order of the inner axis."""
    product: Any = _csr(left) @ _csr(right)
    return product.toarray()


def _csr(matrix: Compressed) -> Any:
    shape = (matrix.n_major, matrix.n_minor)
    return scipy.sparse.csr_matrix((matrix.values, matrix.minor, matrix.offsets), shape=shape, copy=False)
