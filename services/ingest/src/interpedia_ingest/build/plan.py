"""What a build consists of. No torch: the API plans, workers carry out.

Stages: `shard` (the model runs once over some contexts for all SAEs, which spill their non-zeros), `reduce`
(an SAE's features, some at a time, from spills to rows), `publish` (an SAE's rows become readable at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interpedia_ingest.dashboards.selection import shard_ranges
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.jobs import TaskSpec

READY, ABANDONED = "ready", "abandoned"
KIND = "build_dashboards"
SHARD, REDUCE, PUBLISH = STAGES = ("shard", "reduce", "publish")

FEATURE_BLOCK = 128
"""Features that the reduction works on together; ranges that begin at multiples of it waste nothing."""

CONTEXT_WEIGHT = 64
"""Units of progress of a context in the forward pass: as long as the reduction of so many features, about."""
PUBLISH_WEIGHT = 64


@dataclass(frozen=True, slots=True)
class PlannedSAE:
    """One version to build."""

    version_id: int
    d_sae: int


def plan_tasks(saes: Sequence[PlannedSAE], *, n_contexts: int, settings: IngestSettings) -> list[TaskSpec]:
    """All tasks of a build. A unit of work is the reduction of one feature, or as much time as it takes."""
    versions = [sae.version_id for sae in saes]
    shards = [
        TaskSpec(
            kind=SHARD,
            stage=0,
            ordinal=ordinal,
            params={"versions": versions, "first": rows.start, "stop": rows.stop},
            weight=len(rows) * CONTEXT_WEIGHT,
        )
        for ordinal, rows in enumerate(shard_ranges(n_contexts, settings.rows_per_shard))
    ]
    ranges = [
        (sae.version_id, features)
        for sae in saes
        for features in feature_ranges(sae.d_sae, settings.features_per_task)
    ]
    reductions = [
        TaskSpec(
            kind=REDUCE,
            stage=1,
            ordinal=ordinal,
            params={"version": version, "first": features.start, "stop": features.stop},
            weight=len(features),
        )
        for ordinal, (version, features) in enumerate(ranges)
    ]
    publications = [
        TaskSpec(kind=PUBLISH, stage=2, ordinal=ordinal, params={"version": version}, weight=PUBLISH_WEIGHT)
        for ordinal, version in enumerate(versions)
    ]
    return [*shards, *reductions, *publications]


def feature_ranges(d_sae: int, per_task: int) -> list[range]:
    """Cut an SAE's features into ranges that begin at multiples of `FEATURE_BLOCK`."""
    step = max(1, -(-per_task // FEATURE_BLOCK)) * FEATURE_BLOCK
    return [range(first, min(first + step, d_sae)) for first in range(0, d_sae, step)]
