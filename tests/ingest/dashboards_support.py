"""Building spills from dense arrays, and a slow reference that computes dashboards with plain loops."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interpedia_engine.saes.config import SAEConfig
from interpedia_engine.saes.identity import IdentitySAE
from interpedia_ingest.dashboards.hashing import Purpose, seeded_hash
from interpedia_ingest.dashboards.nonzeros import NonzeroCollector
from interpedia_ingest.dashboards.reduce import Reducer
from interpedia_ingest.dashboards.result import FeatureResult, RowsDigest, feature_row
from interpedia_ingest.dashboards.selection import Selection, shard_ranges
from interpedia_ingest.dashboards.settings import BATCH_ROWS, DashboardSettings
from interpedia_ingest.dashboards.spill import Spill, SpillHeader, open_spill, write_spill


def make_selection(tokens: np.ndarray, step: int = 3) -> Selection:
    contexts = np.arange(len(tokens), dtype=np.uint32) * step + 1
    return Selection(contexts, tokens.astype(np.uint32))


def random_dense(
    rng: np.random.Generator,
    n_rows: int,
    length: int,
    d_sae: int,
    *,
    share: float = 0.1,
    signed: bool = False,
) -> np.ndarray:
    """Sparse activations with ties, [n_rows, length, d_sae] float32, position 0 included."""
    values = rng.integers(1, 40, (n_rows, length, d_sae)).astype(np.float32) / np.float32(7)
    if signed:
        values *= rng.choice(np.array([-1, 1], np.float32), values.shape)
    rates = rng.random(d_sae) * 2 * share
    return np.where(rng.random(values.shape) < rates, values, np.float32(0))


def identity(width: int) -> IdentitySAE:
    return IdentitySAE(SAEConfig(architecture="identity", d_in=width, d_sae=width, d_out=width))


def spill_dense(
    folder: Path,
    dense: np.ndarray,
    counted: np.ndarray,
    selection: Selection,
    *,
    settings: DashboardSettings,
    rows_per_shard: int = 10**6,
) -> list[Spill]:
    """Write activations as a build's shards would."""
    n_rows, length, d_sae = dense.shape
    spills: list[Spill] = []
    for rows in shard_ranges(n_rows, rows_per_shard):
        collector = NonzeroCollector("x", identity(d_sae), n_rows=len(rows), context_length=length)
        for first in range(rows.start, rows.stop, BATCH_ROWS):
            part = slice(first, min(first + BATCH_ROWS, rows.stop))
            x = torch.from_numpy(dense[part])
            collector.add(torch.from_numpy(counted[part]), x, target=x)
        arrays = collector.finish()
        header = SpillHeader(
            sae="x",
            weights="",
            settings=settings.digest(),
            rows=selection.digest(rows.start, len(rows)),
            first_row=rows.start,
            n_rows=len(rows),
            context_length=length,
            d_sae=d_sae,
            d_out=d_sae,
            n_nonzero=len(arrays["values"]),
            n_counted=collector.n_counted,
        )
        path = folder / f"{rows_per_shard}.{rows.start}.spill"
        write_spill(path, header, arrays)
        spills.append(open_spill(path))
    return spills


def reduce_all(reducer: Reducer, ranges: Iterable[range] | None = None) -> list[FeatureResult]:
    return [result for features in ranges or [range(reducer.d_sae)] for result in reducer.reduce(features)]


def digest(results: Sequence[FeatureResult]) -> str:
    rows = RowsDigest()
    for result in results:
        rows.add(feature_row(result))
    return rows.hexdigest()


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash(seed: int, purpose: Purpose, *keys: int) -> int:
    return int(seeded_hash(seed, purpose, *(np.array([key]) for key in keys))[0])


def interval_of(peak: float, largest: float) -> int:
    """Exact: the smallest k in 1..5 with peak <= k/5 of the largest."""
    share = Fraction(peak) * 5 / Fraction(largest)
    return -(-share.numerator // share.denominator)


def reference_examples(
    values: np.ndarray, counted: np.ndarray, selection: Selection, feature: int, settings: DashboardSettings
) -> list[dict[str, Any]]:
    """Examples of one feature in plain loops; `values` [n_rows, length] are zero where nothing counts."""
    best: dict[tuple[int, ...], tuple[float, int]] = {}
    n_rows, seed = len(values), settings.seed
    names = selection.contexts.tolist()
    peaks = [float(np.abs(values[row]).max()) for row in range(n_rows)]
    ids = [tuple(int(t) for t in selection.tokens[row]) for row in range(n_rows)]
    for row in range(n_rows):
        if peaks[row] > 0 and (ids[row] not in best or peaks[row] > best[ids[row]][0]):
            best[ids[row]] = (peaks[row], row)
    ranked = sorted((row for _, row in best.values()), key=lambda row: (-peaks[row], row))
    top, others = ranked[: settings.k_top], ranked[settings.k_top :]
    kept: list[tuple[int, int]] = [(0, row) for row in top]
    largest = max(peaks)
    for interval in range(5, 0, -1):
        inside = [row for row in others if interval_of(peaks[row], largest) == interval]
        inside.sort(key=lambda row: _hash(seed, Purpose.EXAMPLE, feature, names[row]))
        chosen = inside[: settings.per_interval]
        kept += [(interval, row) for row in sorted(chosen, key=lambda row: (-peaks[row], row))]
    silent = [
        row for row in range(n_rows) if peaks[row] == 0 and counted[row].any() and ids.index(ids[row]) == row
    ]
    silent.sort(key=lambda row: _hash(seed, Purpose.RANDOM_CONTEXT, feature, names[row]))
    kept += [(255, row) for row in sorted(silent[: settings.n_random])]
    return _described(kept, values, ids, selection, settings)


def _described(
    kept: list[tuple[int, int]],
    values: np.ndarray,
    ids: list[tuple[int, ...]],
    selection: Selection,
    settings: DashboardSettings,
) -> list[dict[str, Any]]:
    seen: set[tuple[int | None, ...]] = set()
    described: list[dict[str, Any]] = []
    for reason, row in kept:
        positions = [p for p in range(values.shape[1]) if values[row, p] != 0]
        repeat = False
        if reason != 255:
            magnitudes = [abs(float(values[row, p])) for p in positions]
            peak = positions[magnitudes.index(max(magnitudes))]
            around = range(peak - settings.repeat_window, peak + settings.repeat_window + 1)
            window = tuple(ids[row][p] if 0 <= p < len(ids[row]) else None for p in around)
            repeat = window in seen
            seen.add(window)
        described.append(
            {
                "context": int(selection.contexts[row]),
                "reason": reason,
                "repeat": repeat,
                "positions": positions,
                "values": [float(values[row, p]) for p in positions],
            }
        )
    return described


def described_examples(result: FeatureResult) -> list[dict[str, Any]]:
    """The examples of a result in the reference's form."""
    kept = result.examples
    return [
        {
            "context": int(kept.contexts[number]),
            "reason": int(kept.reasons[number]),
            "repeat": bool(kept.repeats[number]),
            "positions": positions.tolist(),
            "values": values.tolist(),
        }
        for number, positions, values in kept.rows()
    ]
