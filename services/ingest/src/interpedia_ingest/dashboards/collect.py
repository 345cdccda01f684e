"""From contexts to spill files: one forward pass for all SAEs of a build."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpedia_engine.capture import capture
from interpedia_engine.hooks import Hook
from interpedia_engine.masking import keep_mask, median_norm, norm_mask
from interpedia_engine.saes.base import prepare_input
from interpedia_ingest.dashboards.errors import BadSelection
from interpedia_ingest.dashboards.nonzeros import NonzeroCollector
from interpedia_ingest.dashboards.selection import Selection
from interpedia_ingest.dashboards.settings import BATCH_ROWS, DashboardSettings
from interpedia_ingest.dashboards.spill import SpillHeader, write_spill
from interpedia_ingest.dashboards.target import Build, Target
from interpedia_ingest.dashboards.watch import Watch

_NO_WATCH = Watch()


@dataclass(frozen=True, slots=True)
class SpillReport:
    """One file that was written."""

    sae: str
    path: Path
    digest: str
    n_bytes: int
    n_nonzero: int
    n_counted: int


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What collecting a shard gave, and the CPU seconds it took (all threads of the process)."""

    spills: tuple[SpillReport, ...]
    forward_cpu_seconds: float
    encode_cpu_seconds: float
    spill_cpu_seconds: float


def spill_path(folder: Path, name: str, rows: range) -> Path:
    """Where the spill of an SAE and a shard lies."""
    return folder / f"{name}.{rows.start:08d}-{rows.stop:08d}.spill"


def collect_shard(
    build: Build, selection: Selection, *, rows: range, out_dir: Path, watch: Watch = _NO_WATCH
) -> ShardReport:
    """Run the model on a shard and spill the non-zero activations of every SAE.

    Running it twice writes the same bytes, and the rows of a shard give the same numbers in any sharding:
    forward passes are fixed groups of 32 rows of the selection. (On another machine or with another number of
    threads the last bits of an activation may differ.)

    Args:
        build: Model, SAEs, settings.
        selection: All contexts of the build, not only the shard's.
        rows: Rows of the selection; begins at a multiple of 32, and ends at one or at the end.
        out_dir: Where the files go: `spill_path` says the names.
        watch: Progress in rows; asked for cancellation after every group.

    Raises:
        BadSelection: the rows do not fit the selection or the groups, or contexts have the wrong length.
        NotFinite: an SAE gives NaN or infinity.
        BuildCancelled: the watch said so; no file is left.
    """
    _check_rows(build.settings, selection, rows)
    clock = _Clock()
    collectors = _encode_rows(build, selection, rows=rows, watch=watch, clock=clock)
    with clock.spill:
        reports = [
            _write(build, target, collectors[target.name], selection=selection, rows=rows, out_dir=out_dir)
            for target in build.targets
        ]
    return ShardReport(
        spills=tuple(reports),
        forward_cpu_seconds=clock.forward.seconds,
        encode_cpu_seconds=clock.encode.seconds,
        spill_cpu_seconds=clock.spill.seconds,
    )


def _encode_rows(
    build: Build, selection: Selection, *, rows: range, watch: Watch, clock: _Clock
) -> dict[str, NonzeroCollector]:
    """Run and encode the groups of a shard, one collector per SAE."""
    limits = _norm_limits(build, selection)
    collectors = {
        target.name: NonzeroCollector(
            target.name, target.sae, n_rows=len(rows), context_length=selection.context_length
        )
        for target in build.targets
    }
    for first in range(rows.start, rows.stop, BATCH_ROWS):
        group = range(first, min(first + BATCH_ROWS, rows.stop))
        tokens = _tokens(selection, group)
        with clock.forward, torch.inference_mode():
            activations = capture(build.model, tokens, build.hooks)
        measure = _is_measured(build.settings, selection, group)
        with clock.encode, torch.inference_mode():
            for target in build.targets:
                x = activations[target.hook_in]
                keep = _keep(build.settings, tokens, x, limits[target.hook_in])
                wanted = _reconstructed(target, activations) if measure else None
                collectors[target.name].add(keep, x, target=wanted)
        watch.step(group.stop - rows.start, len(rows))
    return collectors


def _check_rows(settings: DashboardSettings, selection: Selection, rows: range) -> None:
    if selection.context_length != settings.context_length:
        raise BadSelection(
            "tokens",
            f"contexts have {selection.context_length} tokens, the settings {settings.context_length}",
        )
    if not 0 <= rows.start < rows.stop <= selection.n_rows or rows.step != 1:
        raise BadSelection("rows", f"{rows} is not within 0..{selection.n_rows}")
    ends_group = rows.stop % BATCH_ROWS == 0 or rows.stop == selection.n_rows
    if rows.start % BATCH_ROWS or not ends_group:
        raise BadSelection("rows", f"{rows} does not begin and end at multiples of {BATCH_ROWS}")


def _tokens(selection: Selection, rows: range) -> Int[Tensor, "batch pos"]:
    return torch.from_numpy(selection.tokens[rows.start : rows.stop].astype(np.int64))


def _is_measured(settings: DashboardSettings, selection: Selection, group: range) -> bool:
    """Whether the reconstruction is measured on a group: every so many groups, whatever the sharding."""
    if settings.reconstruction_groups == 0:
        return False
    n_groups = -(-selection.n_rows // BATCH_ROWS)
    every = -(-n_groups // settings.reconstruction_groups)
    return group.start // BATCH_ROWS % every == 0


def _norm_limits(build: Build, selection: Selection) -> dict[Hook, float | None]:
    """Largest norm that counts, by hook, from the first group of the selection so that all shards agree."""
    hooks = list(dict.fromkeys(target.hook_in for target in build.targets))
    multiple = build.settings.norm_multiple
    if multiple is None:
        return dict.fromkeys(hooks)
    tokens = _tokens(selection, range(min(BATCH_ROWS, selection.n_rows)))
    activations = capture(build.model, tokens, hooks)
    keep = _keep_ids(build.settings, tokens)
    return {
        hook: multiple * median_norm(values, keep.to(values.device)) for hook, values in activations.items()
    }


def _keep_ids(settings: DashboardSettings, tokens: Tensor) -> Bool[Tensor, "batch pos"]:
    return keep_mask(
        tokens,
        ignore_ids=settings.ignore_ids,
        ignore_positions=settings.ignore_positions,
        prepend_bos=settings.prepend_bos,
    )


def _keep(
    settings: DashboardSettings, tokens: Tensor, x: Tensor, limit: float | None
) -> Bool[Tensor, "batch pos"]:
    keep = _keep_ids(settings, tokens)
    return keep if limit is None else keep & norm_mask(x, limit=limit).to(keep.device)


def _write(
    build: Build,
    target: Target,
    collector: NonzeroCollector,
    *,
    selection: Selection,
    rows: range,
    out_dir: Path,
) -> SpillReport:
    arrays = collector.finish()
    header = SpillHeader(
        sae=target.name,
        weights=target.weights,
        settings=build.settings.digest(),
        rows=selection.digest(rows.start, len(rows)),
        first_row=rows.start,
        n_rows=len(rows),
        context_length=selection.context_length,
        d_sae=target.sae.d_sae,
        d_out=target.sae.d_out,
        n_nonzero=len(arrays["values"]),
        n_counted=collector.n_counted,
    )
    path = spill_path(out_dir, target.name, rows)
    digest = write_spill(path, header, arrays)
    return SpillReport(
        sae=target.name,
        path=path,
        digest=digest,
        n_bytes=path.stat().st_size,
        n_nonzero=header.n_nonzero,
        n_counted=header.n_counted,
    )


def _reconstructed(target: Target, activations: dict[Hook, Tensor]) -> Tensor:
    """What the SAE should give back: its input as it sees it, or what is at a transcoder's output hook."""
    values = activations[target.hook_out]
    return prepare_input(values, target.sae.cfg) if target.hook_in == target.hook_out else values


class _Clock:
    """Adds up the CPU seconds of the three phases."""

    def __init__(self) -> None:
        self.forward, self.encode, self.spill = _Lap(), _Lap(), _Lap()


class _Lap:
    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def __enter__(self) -> None:
        self._since = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._since
