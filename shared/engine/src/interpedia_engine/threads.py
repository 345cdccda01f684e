"""How many threads torch computes with, set on purpose rather than by accident."""

from __future__ import annotations

import torch

from interpedia_engine.errors import OutOfRange


def configure_threads(n: int) -> None:
    """Let torch use `n` threads within an operation, in the whole process.

    The same inputs with the same number of threads give the same bits; another number may differ in the last
    ones.

    Raises:
        OutOfRange: `n` is below 1.
    """
    if n < 1:
        raise OutOfRange("threads", f"at least 1 is needed, not {n}")
    torch.set_num_threads(n)
