"""Which texts share a forward pass. No torch: an order and an inequality.

A pass over r rows, the longest of n positions, through d blocks costs about d · (o + r·n), where o is what
starting costs, in positions. A text joins a pass when that is cheaper than a pass of its own: so texts of
different lengths share when both are short, and a text that needs few blocks waits for its like rather than
ride through many. Who got the fewest tokens so far is served first, whatever order they came in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.compute.contract import ReadJob, ReadResult, hook_of

_LINGER_SHARE = 0.1
"""Longest wait for company, as a share of what the last pass took."""
_MAX_LINGER_S = 0.05


@dataclass(eq=False)
class ReadEntry:
    """A job that waits."""

    job: ReadJob
    ticket: Ticket
    deliver: Callable[[list[ReadResult] | BaseException], None]
    order: int = 0
    ids: tuple[int, ...] = field(init=False)
    depth: int = field(init=False)
    """Blocks that the forward pass has to run for it."""

    def __post_init__(self) -> None:
        self.ids = tuple(self.job.token_ids)
        layers = [hook.layer for hook in map(hook_of, self.job.readings)]
        self.depth = 1 + max((layer for layer in layers if layer is not None), default=0)


@dataclass
class _Pass:
    """A forward pass being put together."""

    overhead: int
    rows: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])
    longest: int = 0
    depth: int = 0

    @property
    def positions(self) -> int:
        return len(self.rows) * self.longest

    @property
    def cost(self) -> int:
        return self.depth * (self.overhead + self.positions) if self.rows else 0

    def joined_by(self, entry: ReadEntry) -> _Pass:
        rows = self.rows if entry.ids in self.rows else self.rows | {entry.ids}
        return _Pass(self.overhead, rows, max(self.longest, len(entry.ids)), max(self.depth, entry.depth))


class ReadQueue:
    """Texts that wait to be read. The compute thread's own.

    Args:
        overhead: What starting a forward pass costs, in tokens of running it.
    """

    def __init__(self, overhead: int) -> None:
        self._overhead = overhead
        self._entries: list[ReadEntry] = []
        self._count = 0
        self._companions = (1, 1)
        """Callers of the last two passes: who comes in two halves is better served as one."""
        self._linger_until = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: ReadEntry) -> None:
        """Queue a job."""
        self._count += 1
        entry.order = self._count
        self._entries.append(entry)

    def wait_until(self) -> float:
        """Before this time it pays to wait for the callers of the last passes, who are about to ask again.

        0 when it does not: as many wait as were served together, or more.
        """
        callers = len({id(entry.ticket) for entry in self._entries})
        return 0.0 if callers >= max(self._companions) else self._linger_until

    def served(self, batch: list[ReadEntry], *, now: float, seconds: float) -> None:
        """Learn from a pass that took `seconds` and ended at `now`."""
        self._companions = (self._companions[1], len({id(entry.ticket) for entry in batch}))
        self._linger_until = now + min(_LINGER_SHARE * seconds, _MAX_LINGER_S)

    def take(self, max_positions: int) -> list[ReadEntry]:
        """Take the next pass off the queue: the first in line, and who gains by joining; none when none wait.

        Args:
            max_positions: Most positions of a pass with more than one row, padding included.
        """
        self._entries = [entry for entry in self._entries if not entry.ticket.is_over]
        line = sorted(self._entries, key=lambda entry: (entry.ticket.tokens_run, entry.order))
        taken: list[ReadEntry] = []
        together = _Pass(self._overhead)
        for entry in line:
            joined = together.joined_by(entry)
            alone = _Pass(self._overhead).joined_by(entry)
            fits = joined.positions <= max_positions or joined.rows == together.rows
            if not taken or (fits and joined.cost <= together.cost + alone.cost):
                taken.append(entry)
                together = joined
        chosen = set(map(id, taken))
        self._entries = [entry for entry in self._entries if id(entry) not in chosen]
        return taken

    def clear(self) -> list[ReadEntry]:
        """Empty the queue and return what was in it."""
        entries, self._entries = self._entries, []
        return entries
