"""Silent windows: what is stored, and near misses that are checked by running the model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from interpedia_autointerp.material.backend import ActivationBackend
from interpedia_autointerp.material.cutting import (
    Active,
    Cut,
    around,
    grid,
    silent_contexts,
)
from interpedia_autointerp.material.pool import Pool
from interpedia_autointerp.material.settings import MaterialSettings
from interpedia_autointerp.material.source import FeatureSource
from interpedia_autointerp.material.window import Negative
from interpedia_shared.dashboards import REASON_RANDOM, REASON_TOP

_INSIDE: tuple[Negative, ...] = ("same_token", "same_context")
_NEIGHBOUR_WINDOWS = 3
"""Most windows of one neighbour."""


@dataclass(frozen=True)
class Ground:
    """What negatives are made from."""

    source: FeatureSource
    active: Sequence[Active]
    positives: Sequence[Cut]
    settings: MaterialSettings

    def quota(self, kind: Negative) -> int:
        """Most windows of a kind."""
        return self.settings.quotas.get(kind, 0)

    def peak_tokens(self) -> list[int]:
        """The tokens that it peaks on, most frequent first."""
        tokens = [int(each.passage.ids[each.peak]) for each in self.active]
        return sorted(dict.fromkeys(tokens), key=lambda token: (-tokens.count(token), token))


def stored(ground: Ground, pool: Pool | None) -> list[Cut]:
    """Windows that are silent by what is stored: random contexts, and silent parts of active ones.

    Weights are windows of the corpus; with a pool windows of it, and its random ones stand for the rest.
    """
    return [*_inside(ground, pool), *([] if pool is not None else _random(ground))]


def _random(ground: Ground) -> list[Cut]:
    """Windows of the stored silent contexts; together they stand for all silent contexts."""
    build, settings = ground.source.build, ground.settings
    found = [
        Cut(passage, start, stop, "random", 1.0)
        for passage in silent_contexts(ground.source)
        for start, stop in grid(len(passage.ids), build.first, settings.window_tokens)
    ]
    chosen = _some(found, ground.quota("random"), settings.seed)
    per_context = len(found) / max(1, len(silent_contexts(ground.source)))
    n_silent = build.n_contexts - ground.source.stats.n_active_contexts
    return _weighted(chosen, n_silent * per_context)


def _inside(ground: Ground, pool: Pool | None) -> list[Cut]:
    """Silent windows of active contexts, those that hold a token of a peak apart."""
    build, settings = ground.source.build, ground.settings
    wanted = set(ground.peak_tokens())
    silent = [
        Cut(each.passage, start, stop, _kind(each.passage.ids[start:stop], wanted), each.weight)
        for each in ground.active
        for start, stop in grid(len(each.values), build.first, settings.window_tokens)
        if not np.any(each.values[start:stop])
    ]
    drawn = None if pool is None else {(p.index, start) for p, start, _ in pool.places}
    cuts: list[Cut] = []
    for kind in _INSIDE:
        candidates = [cut for cut in silent if cut.stratum == kind]
        if drawn is None:
            # the candidates' weights are contexts; each candidate is one window of one of them
            total = sum(cut.weight for cut in candidates)
        else:
            total = float(sum((cut.passage.index, cut.start) in drawn for cut in candidates))
        cuts += _weighted(_some(candidates, ground.quota(kind), settings.seed), total)
    return cuts


def _kind(ids: NDArray[np.uint32], wanted: set[int]) -> Negative:
    return "same_token" if wanted & set(ids.tolist()) else "same_context"


def _some(cuts: Sequence[Cut], most: int, seed: int) -> list[Cut]:
    """By chance, at first one of each context."""
    by_context: dict[int, int] = {}
    ranked: list[tuple[int, Cut]] = []
    for cut in sorted(cuts, key=lambda each: each.key(seed)):
        turn = by_context.get(cut.passage.index, 0)
        by_context[cut.passage.index] = turn + 1
        ranked.append((turn, cut))
    return [cut for _, cut in sorted(ranked, key=lambda pair: pair[0])][:most]


def _weighted(cuts: Sequence[Cut], total: float) -> list[Cut]:
    return [replace(cut, weight=round(total / len(cuts), 6)) for cut in cuts]


def neighbour_candidates(ground: Ground) -> list[Cut]:
    """Windows around the peaks of neighbours, in contexts where this feature is not known to fire."""
    build, settings = ground.source.build, ground.settings
    known = {each.passage.index for each in ground.active}
    found: list[Cut] = []
    for neighbour in ground.source.neighbours:
        rows = [
            (int(neighbour.examples.contexts[number]), int(positions[np.abs(values).argmax()]))
            for number, positions, values in neighbour.examples.rows()
            if len(positions) and neighbour.examples.reasons[number] == REASON_TOP
        ]
        for context, at in [row for row in rows if row[0] not in known][:_NEIGHBOUR_WINDOWS]:
            passage = ground.source.passages[context]
            start, stop = around(
                passage, at, build, size=settings.window_tokens, before_share=settings.before_share
            )
            name = f"feature {neighbour.index}"
            found.append(Cut(passage, start, stop, "neighbour", 0.0, source=name))
            known.add(context)
    return found


def is_exhaustive(source: FeatureSource) -> bool:
    """Whether every active context of the build is stored, so that it is silent on all others of it."""
    n_stored = int((source.examples.reasons != REASON_RANDOM).sum())
    return n_stored == source.stats.n_active_contexts


def edit_candidates(ground: Ground, pool: Pool) -> list[Cut]:
    """Windows on which it fires, with the token of the peak exchanged for one from elsewhere."""
    build, settings = ground.source.build, ground.settings
    avoided = set(ground.peak_tokens())
    rng = random.Random(f"{settings.seed} {ground.source.feature}")
    others = [
        token
        for passage, start, stop in pool.places[:200]
        for token in passage.ids[start:stop].tolist()
        if token not in avoided and "".join(build.pieces([token])).strip().isalpha()
    ]
    found: list[Cut] = []
    for cut in ground.positives if others else ():
        values = np.abs(np.array(cut.values))
        ids = list(cut.token_ids)
        for at in np.flatnonzero(values > 0).tolist():
            ids[at] = rng.choice(others)
        found.append(
            Cut(cut.passage, cut.start, cut.stop, "edit", 0.0, ids=tuple(ids), source="tokens exchanged")
        )
    return _some(found, int(ground.quota("edit") * settings.spare), settings.seed)


@dataclass(frozen=True)
class Wanted:
    """Candidates of one kind, best first, of which `quota` are wanted.

    Attributes:
        sizes: how many windows the candidates stand for, by part.
        parts: of each candidate, the part that it stands for; where they are in one part, empty.
    """

    candidates: Sequence[Cut]
    quota: int
    sizes: Mapping[int, float] = field(default_factory=dict[int, float])
    parts: Sequence[int] = ()

    def kept(self, is_silent: Sequence[bool]) -> list[Cut]:
        """The first silent ones, weighted to stand for the silent windows: those that fire are none of them.

        A part's share of silent windows is that of its candidates; parts without any are taken to have the
        share of all. What parts stand for of which no window is kept is spread over the others.
        """
        parts = self.parts or [0] * len(self.candidates)
        found = [number for number, silent in enumerate(is_silent) if silent]
        chosen = found[: self.quota]
        n_tried, n_silent = Counter(parts), Counter(parts[number] for number in found)
        n_kept = Counter(parts[number] for number in chosen)
        overall = len(found) / max(1, len(parts))
        masses = {
            part: size * (n_silent[part] / n_tried[part] if n_tried[part] else overall)
            for part, size in self.sizes.items()
        }
        reached = sum(mass for part, mass in masses.items() if n_kept[part])
        scale = sum(masses.values()) / reached if reached > 0 else 0.0
        return [
            replace(
                self.candidates[number],
                weight=round(scale * masses.get(parts[number], 0.0) / n_kept[parts[number]], 6),
            )
            for number in chosen
        ]


async def from_pool(ground: Ground, pool: Pool) -> list[Wanted]:
    """Candidates of the kinds that a pool gives: same token, near in meaning, random."""
    settings = ground.settings
    spare = settings.spare

    def first(numbers: Sequence[int], kind: Negative, size: float) -> Wanted:
        candidates = [pool.cut(n, kind, 0.0) for n in numbers[: int(spare * ground.quota(kind))]]
        return Wanted(candidates, ground.quota(kind), {0: size})

    known = {each.passage.index for each in ground.active}
    free = [n for n, place in enumerate(pool.places) if place[0].index not in known]
    is_free = set(free)
    owners = {n: token for n, token in pool.with_tokens(ground.peak_tokens()).items() if n in is_free}
    same = list(owners)
    shown = ["".join(ground.source.build.pieces(cut.token_ids)) for cut in ground.positives[:8]]
    near = await pool.nearest(shown, without=set(same) | (set(range(len(pool))) - is_free))
    n_near = int(spare * ground.quota("near"))
    taken = set(same) | set(near[:n_near])
    rest = [number for number in free if number not in taken]
    random.Random(f"{settings.seed} {ground.source.feature}").shuffle(rest)
    # the near ones stand for their share of the embedded sample; the rest for all that is neither
    n_embedded = sum(number in is_free and number not in set(same) for number in pool.embedded)
    others = len(free) - len(same)
    share = min(len(near), n_near) / n_embedded if n_embedded else 0.0
    # most windows with a token of its peaks fire as well
    tried = same[: int(2 * spare * ground.quota("same_token"))]
    return [
        Wanted(
            [pool.cut(n, "same_token", 0.0) for n in tried],
            ground.quota("same_token"),
            {token: float(n) for token, n in Counter(owners.values()).items()},
            [owners[n] for n in tried],
        ),
        first(near, "near", share * others),
        first(rest, "random", (1 - share) * others),
    ]


async def verified(ground: Ground, wanted: Sequence[Wanted], backend: ActivationBackend) -> list[Cut]:
    """Of every kind as many as are wanted, only those in which the feature is silent when it is run."""
    cuts = [cut for each in wanted for cut in each.candidates]
    if not cuts:
        return []
    traces = await backend.on_tokens(ground.source.feature, [_row(cut) for cut in cuts])
    silent = iter([not any(t.values[c.start : c.stop]) for c, t in zip(cuts, traces, strict=True)])
    found: list[Cut] = []
    for each in wanted:
        found += each.kept([next(silent) for _ in each.candidates])
    return found


def _row(cut: Cut) -> list[int]:
    """Tokens up to the window's end; what comes after cannot matter to it."""
    return [*cut.passage.ids[: cut.start].tolist(), *cut.token_ids]
