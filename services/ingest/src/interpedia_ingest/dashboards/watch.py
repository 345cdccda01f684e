"""How long work reports where it is, and how it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interpedia_ingest.dashboards.errors import BuildCancelled


def _ignore(_done: int, _total: int) -> None:
    return None


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Watch:
    """Two callbacks that long work calls between its steps (every 32 contexts or 128 features)."""

    progress: Callable[[int, int], None] = _ignore
    """Called with (done, total), in contexts or in features."""
    should_cancel: Callable[[], bool] = _never

    def step(self, done: int, total: int) -> None:
        """Report, then stop if asked to.

        Raises:
            BuildCancelled: `should_cancel` answered True.
        """
        self.progress(done, total)
        if self.should_cancel():
            raise BuildCancelled("job", f"cancelled after {done} of {total}")
