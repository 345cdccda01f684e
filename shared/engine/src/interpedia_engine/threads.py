"""How this process computes: torch's threads and glibc's memory, set on purpose rather than by accident."""

from __future__ import annotations

import ctypes
import sys

import torch

from interpedia_engine.errors import OutOfRange

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 1 << 30


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


def keep_freed_memory() -> bool:
    """Let freed tensors be used again instead of going back to the system.

    By default glibc returns every large block, so that each operation of a forward pass on a CPU pays for
    fresh, zeroed pages: up to a seventh of the whole. The process keeps its peak size instead. Call it once,
    before the first large allocation. Returns False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena: those of other threads are too small for such blocks and would fall back to fresh pages.
    wishes = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _KEEP_BYTES), (_M_TRIM_THRESHOLD, _KEEP_BYTES))
    taken = [mallopt(option, value) == 1 for option, value in wishes]
    return all(taken)
