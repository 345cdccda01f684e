"""Windows out of contexts: around peaks, and on a grid."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.material.source import Build, FeatureSource, Passage
from interpedia_autointerp.material.window import Split, Window
from interpedia_shared.dashboards import N_INTERVALS, REASON_RANDOM, REASON_TOP

JITTER = 0.2
"""Most by which the share of a window before its peak differs from the setting."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A window before it has its split and its name."""

    passage: Passage
    start: int
    stop: int
    stratum: str
    weight: float
    values: tuple[float, ...] = ()
    ids: tuple[int, ...] = ()
    source: str | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The passage's own tokens, unless others were put in."""
        return self.ids or tuple(self.passage.ids[self.start : self.stop].tolist())

    def key(self, seed: int) -> bytes:
        """For an order that is the same at every run and tells nothing."""
        name = f"{seed} {self.passage.index} {self.start} {self.stop} {self.ids}"
        return hashlib.sha256(name.encode()).digest()

    def window(self, build: Build, name: str, split: Split) -> Window:
        """The finished window."""
        ids = self.token_ids
        return Window(
            id=name,
            pieces=build.pieces(ids),
            values=self.values or (0.0,) * len(ids),
            split=split,
            stratum=self.stratum,
            weight=self.weight,
            document=self.passage.document,
            context=self.passage.index,
            start=self.start,
            token_ids=ids,
            source=self.source,
        )


@dataclass(frozen=True, slots=True)
class Active:
    """A stored context on which the feature fires, densely.

    `weight`: how many active contexts of the build it stands for: 1 for the top ones, which are all kept;
    for one drawn from an interval, the contexts of the interval that are not top, over those drawn.
    """

    passage: Passage
    values: NDArray[np.float32]  # [context_length]
    interval: int
    weight: float
    is_repeat: bool

    @property
    def peak(self) -> int:
        """Where it fires most."""
        return int(np.abs(self.values).argmax())


def active_contexts(source: FeatureSource) -> list[Active]:
    """The stored contexts on which it fires, in stored order."""
    examples, largest = source.examples, _largest(source)
    rows: list[tuple[int, NDArray[np.float32], int]] = []
    for number, positions, values in examples.rows():
        if examples.reasons[number] == REASON_RANDOM or not len(positions) or not np.any(values):
            continue
        passage = source.passages[int(examples.contexts[number])]
        dense = np.zeros(len(passage.ids), np.float32)
        dense[positions] = values
        rows.append((number, dense, interval_of(float(np.abs(values).max()), largest)))
    counts = source.stats.interval_counts
    is_top = {number: examples.reasons[number] == REASON_TOP for number, _, _ in rows}
    n_top = [sum(k == each and is_top[n] for n, _, each in rows) for k in range(N_INTERVALS + 1)]
    n_drawn = [sum(k == each and not is_top[n] for n, _, each in rows) for k in range(N_INTERVALS + 1)]
    found: list[Active] = []
    for number, dense, interval in rows:
        weight = 1.0
        if not is_top[number] and len(counts):
            weight = max(1.0, (float(counts[interval - 1]) - n_top[interval]) / n_drawn[interval])
        passage = source.passages[int(examples.contexts[number])]
        found.append(Active(passage, dense, interval, weight, bool(examples.repeats[number])))
    return found


def silent_contexts(source: FeatureSource) -> list[Passage]:
    """The stored random contexts on which it is silent."""
    examples = source.examples
    return [
        source.passages[int(context)]
        for context, reason in zip(examples.contexts, examples.reasons, strict=True)
        if reason == REASON_RANDOM
    ]


def _largest(source: FeatureSource) -> float:
    return max(abs(source.stats.max_activation), abs(source.stats.min_activation))


def interval_of(peak: float, largest: float) -> int:
    """1 to N_INTERVALS, of equal width between 0 and the feature's maximum."""
    share = peak / largest if largest > 0 else 0.0
    return min(N_INTERVALS, max(1, int(np.ceil(share * N_INTERVALS - 1e-3))))


def around(passage: Passage, at: int, build: Build, *, size: int, before_share: float) -> tuple[int, int]:
    """First token and end of a window of `size` tokens that holds position `at`."""
    before = min(size - 1, max(0, round((size - 1) * before_share)))
    start = max(build.first, at - before)
    stop = min(len(passage.ids), start + size)
    return max(build.first, stop - size), stop


def grid(length: int, first: int, size: int) -> Iterator[tuple[int, int]]:
    """Windows side by side from the first token that counts; a last one of less than half is left out."""
    for start in range(first, length, size):
        stop = min(length, start + size)
        if 2 * (stop - start) >= size:
            yield start, stop


def positive_cuts(active: Sequence[Active], build: Build, *, size: int, before_share: float) -> list[Cut]:
    """One window around the peak of every context, those that repeat an earlier text left out.

    The peak is not at one place in all windows: a judge of marked tokens could go by the place.
    """
    cuts: list[Cut] = []
    seen: set[tuple[int, ...]] = set()
    for each in active:
        share = before_share + _jitter(each.passage.index)
        start, stop = around(each.passage, each.peak, build, size=size, before_share=share)
        near = tuple(each.passage.ids[max(start, each.peak - 7) : min(stop, each.peak + 8)].tolist())
        if each.is_repeat or near in seen:
            continue
        seen.add(near)
        values = tuple(round(float(value), 6) for value in each.values[start:stop])
        cuts.append(Cut(each.passage, start, stop, f"interval {each.interval}", each.weight, values))
    return cuts


def _jitter(context: int) -> float:
    """Between -JITTER and JITTER, the same for a context at every run."""
    drawn = int.from_bytes(hashlib.sha256(f"place {context}".encode()).digest()[:4], "big") / 2**32
    return JITTER * (2 * drawn - 1)


def window_share(active: Sequence[Active], build: Build, size: int) -> float:
    """Of an active context's windows on the grid, the fraction in which it fires; estimated by weights."""
    fires = total = 0.0
    for each in active:
        places = list(grid(len(each.values), build.first, size))
        fires += each.weight * sum(bool(np.any(each.values[a:b])) for a, b in places)
        total += each.weight * len(places)
    return fires / total if total else 0.0
