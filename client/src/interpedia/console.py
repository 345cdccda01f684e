"""The one place that writes to a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

BAR_WIDTH = 24
# Without a terminal a line is written only so often, so that a log stays readable.
PLAIN_SECONDS = 5.0
TTY_SECONDS = 0.1


def write(text: str = "") -> None:
    """One line to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def abandon() -> None:
    """Nobody reads standard output any more: what is still to be flushed goes nowhere, without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """One line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """`7 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class ProgressLine:
    """One line that is rewritten in place on a terminal, and repeated now and then elsewhere."""

    def __init__(
        self,
        label: str,
        *,
        paced: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._paced = paced  # False where what is left says nothing about how long it takes
        self._stream = stream or sys.stdout
        self._clock = clock
        self._tty = self._stream.isatty()
        self._begun = clock()
        self._first_done: float | None = None
        self._shown_at: float | None = None
        self._shown = ""

    def update(self, done: float, total: float, *, note: str = "", unit: str = "") -> None:
        """Shows percent and `note`, and once they are known the rate in `unit`/s and the time left."""
        now = self._clock()
        if self._first_done is None:
            self._first_done, self._begun = done, now
        text = f"{self._label}: {self._bar(done, total)}"
        if note:
            text += f"  {note}"
        text += self._pace(done, total, seconds=now - self._begun, unit=unit)
        pause = TTY_SECONDS if self._tty else PLAIN_SECONDS
        if self._shown_at is None or now - self._shown_at >= pause or done >= total > 0:
            self._show(text, now)

    def finish(self, text: str) -> None:
        """Ends the line with `text` in its place."""
        end = "\n"
        start = "\r\x1b[K" if self._tty else ""
        self._stream.write(f"{start}{self._label}: {text}{end}")
        self._stream.flush()

    def _bar(self, done: float, total: float) -> str:
        fraction = min(1.0, done / total) if total > 0 else 0.0
        if not self._tty:
            return f"{fraction:4.0%}"
        filled = round(fraction * BAR_WIDTH)
        return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {fraction:4.0%}"

    def _pace(self, done: float, total: float, *, seconds: float, unit: str) -> str:
        gained = done - (self._first_done or 0.0)
        if not self._paced or gained <= 0 or seconds < 1.0:
            return ""
        rate = gained / seconds
        shown = f"  {rate:,.0f} {unit}/s" if unit and rate >= 10 else f"  {rate:.1f} {unit}/s" if unit else ""
        return f"{shown}  {duration((total - done) / rate)} left" if done < total else shown

    def _show(self, text: str, now: float) -> None:
        if text == self._shown:
            return
        self._stream.write(f"\r\x1b[K{text}" if self._tty else f"{text}\n")
        self._stream.flush()
        self._shown, self._shown_at = text, now
