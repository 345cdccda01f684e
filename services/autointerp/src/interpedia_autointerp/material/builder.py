"""From what is stored of a feature to its frozen task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from interpedia_autointerp.material.backend import ActivationBackend
from interpedia_autointerp.material.cutting import Active, Cut, active_contexts, positive_cuts, window_share
from interpedia_autointerp.material.negatives import (
    Ground,
    Wanted,
    edit_candidates,
    from_pool,
    is_exhaustive,
    neighbour_candidates,
    stored,
    verified,
)
from interpedia_autointerp.material.pool import Pool
from interpedia_autointerp.material.settings import MaterialSettings
from interpedia_autointerp.material.source import FeatureSource
from interpedia_autointerp.material.splits import assign
from interpedia_autointerp.material.task import Population, Status, Task
from interpedia_autointerp.material.window import HARD, Window
from interpedia_shared.dashboards import Ranked

MATERIAL_VERSION = "1"
_UNVERIFIED = (
    "No live model was at hand: near misses are only those that are silent by what is stored, and windows of "
    "other texts with the same tokens are missing."
)
_NO_ENCODER = "No text encoder was at hand: windows close in meaning are missing."


async def build_task(
    source: FeatureSource,
    settings: MaterialSettings | None = None,
    *,
    pool: Pool | None = None,
    backend: ActivationBackend | None = None,
) -> Task:
    """Cut, divide and freeze.

    Args:
        source: the feature as stored.
        settings: how.
        pool: of the feature's build; used with a backend only, since nothing in it is known to be silent.
        backend: runs the model on candidates of near misses.

    Raises:
        Problem: what the backend raises. Without an answer no task is made: half of the near misses
            would be another task.
    """
    settings = settings or MaterialSettings()
    active = active_contexts(source)
    positives = positive_cuts(
        active, source.build, size=settings.window_tokens, before_share=settings.before_share
    )
    ground = Ground(source, active, positives, settings)
    if source.stats.n_active_tokens == 0 or not active:
        return _task(ground, [], "dead", "It is not active anywhere in the build's corpus.")
    silent = await _silent(ground, pool, backend)
    windows = _divided(ground, silent)
    status, detail = _judged(ground, windows)
    return _task(
        ground, windows, status, detail, is_verified=backend is not None and pool is not None, pool=pool
    )


async def _silent(ground: Ground, pool: Pool | None, backend: ActivationBackend | None) -> list[Cut]:
    neighbours = Wanted(neighbour_candidates(ground), ground.quota("neighbour"))
    if backend is None or pool is None:
        known = list(neighbours.candidates)[: neighbours.quota] if is_exhaustive(ground.source) else []
        return [*stored(ground, None), *known]
    edits = Wanted(edit_candidates(ground, pool), ground.quota("edit"))
    limit = int(ground.settings.spare * neighbours.quota)
    wanted = [
        *await from_pool(ground, pool),
        Wanted(neighbours.candidates[:limit], neighbours.quota),
        edits,
    ]
    return [*stored(ground, pool), *await verified(ground, wanted, backend)]


def _divided(ground: Ground, silent: Sequence[Cut]) -> list[Window]:
    """All windows with their splits and with names that tell nothing."""
    settings = ground.settings
    splits = assign(ground.positives, settings.positive_shares, seed=settings.seed)
    splits |= assign(silent, settings.silent_shares, seed=settings.seed, taken=splits)
    cuts = sorted(_distinct([*ground.positives, *silent]), key=lambda cut: cut.key(settings.seed))
    return [
        cut.window(ground.source.build, f"w{number}", splits[cut.passage.document])
        for number, cut in enumerate(cuts, 1)
    ]


def _distinct(cuts: Sequence[Cut]) -> list[Cut]:
    """Every text once: what fires first, then the hard ones."""
    ranked = sorted(cuts, key=lambda cut: (not cut.values, cut.stratum not in HARD))
    return list({cut.token_ids: cut for cut in reversed(ranked)}.values())


def _judged(ground: Ground, windows: Sequence[Window]) -> tuple[Status, str | None]:
    """Whether there is enough to explain and to test."""
    settings = ground.settings
    firing = Counter(w.split for w in windows if w.fires)
    silent = Counter(w.split for w in windows if not w.fires)
    lacking = [split for split in ("explain", "test") if firing[split] < settings.min_positives]
    if lacking:
        documents = len({w.document for w in windows if w.fires})
        return "insufficient", (
            f"{len(ground.active)} stored contexts in which it fires give {len(ground.positives)} different "
            f"excerpts from {documents} documents, of which {firing['explain']} can be used to explain and "
            f"{firing['test']} to test; {settings.min_positives} are needed for each."
        )
    if silent["test"] < settings.min_silent:
        return "insufficient", (
            f"{silent['test']} silent excerpts can be used to test; {settings.min_silent} are needed."
        )
    return "ok", None


def _task(
    ground: Ground,
    windows: Sequence[Window],
    status: Status,
    detail: str | None,
    *,
    is_verified: bool = False,
    pool: Pool | None = None,
) -> Task:
    source, settings = ground.source, ground.settings
    stats, build = source.stats, source.build
    notes: list[str] = []
    if status != "dead" and not is_verified:
        notes.append(_UNVERIFIED)
    if is_verified and (pool is None or pool.embedder is None):
        notes.append(_NO_ENCODER)
    made_with = {"version": MATERIAL_VERSION, "settings": settings.to_json(), **build.made_from}
    if is_verified and pool is not None:
        made_with["pool_windows"] = len(pool)
        made_with["encoder"] = None if pool.embedder is None else pool.embedder.model
    return Task(
        feature=source.feature,
        status=status,
        windows=tuple(windows),
        detail=detail,
        promoted=_tokens(source, stats.top_logits),
        suppressed=_tokens(source, stats.bottom_logits),
        population=_population(ground, ground.active),
        max_activation=max(abs(stats.max_activation), abs(stats.min_activation)),
        depth=build.depth,
        is_verified=is_verified,
        notes=tuple(notes),
        made_with=made_with,
    )


def _population(ground: Ground, active: Sequence[Active]) -> Population:
    stats, build, size = ground.source.stats, ground.source.build, ground.settings.window_tokens
    context_density = stats.n_active_contexts / build.n_contexts if build.n_contexts else 0.0
    return Population(
        token_density=stats.n_active_tokens / build.n_tokens if build.n_tokens else 0.0,
        n_contexts=build.n_contexts,
        n_active_contexts=stats.n_active_contexts,
        window_tokens=size,
        window_density=context_density * window_share(active, build, size),
    )


def _tokens(source: FeatureSource, ranked: Ranked) -> tuple[tuple[str, float], ...]:
    return tuple(
        ("".join(source.build.pieces([token])), round(float(value), 6))
        for token, value in zip(ranked.ids, ranked.values, strict=True)
    )
