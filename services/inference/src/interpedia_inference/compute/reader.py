"""Running one forward pass for many texts, and giving each caller what it asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import structlog
import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.capture import capture
from interpedia_engine.errors import EngineError
from interpedia_engine.hooks import Hook
from interpedia_engine.models.language_model import LanguageModel
from interpedia_inference.compute.contract import (
    AllFeatures,
    DirectionValues,
    FeatureColumns,
    Floats,
    RawActivations,
    ReadResult,
    hook_of,
)
from interpedia_inference.compute.encoding import columns_of, sparse_of
from interpedia_inference.compute.kept import KeptActivations
from interpedia_inference.compute.reads import ReadEntry
from interpedia_inference.metrics import BATCH_ROWS, BATCH_TOKENS, TOKENS
from interpedia_shared.problems import InternalError, Unavailable

log = structlog.get_logger(__name__)

Activations = dict[tuple[int, ...], dict[Hook, Tensor]]
"""By text, then hook: float [pos, d]."""


class Reader:
    """Reads texts from one model. The compute thread's own."""

    def __init__(self, model: LanguageModel, kept: KeptActivations) -> None:
        self._model = model
        self._kept = kept

    def run(self, batch: Sequence[ReadEntry]) -> None:
        """Read a batch and deliver each result; what fails in company is tried once more alone."""
        try:
            results = self._read(batch)
        except Exception as error:  # noqa: BLE001 (one bad text must not fail its mates, whatever is wrong)
            if len(batch) == 1:
                batch[0].deliver(as_problem(error, "read"))
                return
            for entry in batch:
                self.run([entry])
            return
        for entry, result in zip(batch, results, strict=True):
            entry.deliver(result)

    @torch.inference_mode()
    def _read(self, batch: Sequence[ReadEntry]) -> list[list[ReadResult]]:
        activations = self._activations(batch)
        results: list[list[ReadResult | None]] = [[None] * len(entry.job.readings) for entry in batch]
        columns: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        sparse: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, entry in enumerate(batch):
            for place, reading in enumerate(entry.job.readings):
                if isinstance(reading, FeatureColumns):
                    columns[id(reading.sae.sae)].append((number, place))
                elif isinstance(reading, AllFeatures):
                    sparse[id(reading.sae.sae)].append((number, place))
                else:
                    here = activations[entry.ids][reading.hook]
                    results[number][place] = _plain(reading, here, entry.job.counted)
        for places in columns.values():
            _fill_columns(batch, places, activations, results)
        for places in sparse.values():
            _fill_sparse(batch, places, activations, results)
        return [[one for one in result if one is not None] for result in results]

    def _activations(self, batch: Sequence[ReadEntry]) -> Activations:
        """Of each different text once, at the hooks that anybody asked for on any of the texts to run."""
        wanted: dict[tuple[int, ...], dict[Hook, None]] = {}
        for entry in batch:
            wanted.setdefault(entry.ids, {}).update(dict.fromkeys(map(hook_of, entry.job.readings)))
        found: Activations = {}
        for ids, hooks in wanted.items():
            if (kept := self._kept.find(ids, hooks)) is not None:
                found[ids] = kept
        missing = [ids for ids in wanted if ids not in found]
        if missing:
            hooks = list(dict.fromkeys(hook for ids in missing for hook in wanted[ids]))
            for ids, captured in self._forward(missing, hooks).items():
                found[ids] = captured
                for hook in wanted[ids]:
                    self._kept.keep(ids, hook, captured[hook])
        return found

    def _forward(self, rows: Sequence[tuple[int, ...]], hooks: Sequence[Hook]) -> Activations:
        longest = max(map(len, rows))
        # Padding stands on the right, where a causal model never looks back from a token of the text: no
        # mask is needed, and every row takes the same path through the model as it does alone.
        padded = torch.zeros(len(rows), longest, dtype=torch.int64)
        for number, ids in enumerate(rows):
            padded[number, : len(ids)] = torch.tensor(ids)
        captured = capture(self._model, padded.to(self._model.device), hooks)
        BATCH_ROWS.labels("read").observe(len(rows))
        BATCH_TOKENS.labels("read").observe(padded.numel())
        TOKENS.labels("read").inc(sum(map(len, rows)))
        return {
            ids: {hook: captured[hook][number, : len(ids)] for hook in hooks}
            for number, ids in enumerate(rows)
        }


def as_problem(error: Exception, kind: str) -> Exception:
    """What a caller is told of an error in the compute thread; what is ours goes to the log."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        log.warning("out_of_memory", kind=kind)
        return Unavailable("There is not enough memory for this right now.", retry_after_s=5)
    log.error("compute_failed", kind=kind, exc_info=error)
    return InternalError()


def _plain(
    reading: DirectionValues | RawActivations, here: Float[Tensor, "pos d"], counted: np.ndarray | None
) -> Floats:
    if isinstance(reading, RawActivations):
        return here.float().cpu().numpy().copy()
    vector = torch.from_numpy(reading.vector).to(here.device)
    return blank_uncounted((here.float() @ vector).cpu().numpy(), counted)


def blank_uncounted(values: Floats, counted: np.ndarray | None) -> Floats:
    """NaN where a position is not counted, along the first axis."""
    if counted is not None:
        values[~counted] = np.nan
    return values


def _rows_of(
    batch: Sequence[ReadEntry], places: Sequence[tuple[int, int]], activations: Activations
) -> list[tuple[Float[Tensor, "n d"], np.ndarray]]:
    """For each place the activations at its counted positions, and which positions these are."""
    rows: list[tuple[Tensor, np.ndarray]] = []
    for number, place in places:
        entry = batch[number]
        here = activations[entry.ids][hook_of(entry.job.readings[place])]
        counted = entry.job.counted
        positions = np.arange(len(entry.ids)) if counted is None else np.flatnonzero(counted)
        if len(positions) < len(entry.ids):
            here = here[torch.from_numpy(positions).to(here.device)]
        rows.append((here, positions))
    return rows


def _fill_columns(
    batch: Sequence[ReadEntry],
    places: Sequence[tuple[int, int]],
    activations: Activations,
    results: list[list[ReadResult | None]],
) -> None:
    asked = [batch[number].job.readings[place] for number, place in places]
    readings = [reading for reading in asked if isinstance(reading, FeatureColumns)]
    rows = _rows_of(batch, places, activations)
    encoded = columns_of(readings[0].sae.sae, [row for row, _ in rows], [one.features for one in readings])
    for (number, place), (_, positions), values in zip(places, rows, encoded, strict=True):
        full = np.full((len(batch[number].ids), values.shape[1]), np.nan, dtype=np.float32)
        full[positions] = values
        results[number][place] = full


def _fill_sparse(
    batch: Sequence[ReadEntry],
    places: Sequence[tuple[int, int]],
    activations: Activations,
    results: list[list[ReadResult | None]],
) -> None:
    first = batch[places[0][0]].job.readings[places[0][1]]
    assert isinstance(first, AllFeatures)
    rows = _rows_of(batch, places, activations)
    for (number, place), values in zip(places, sparse_of(first.sae.sae, rows), strict=True):
        results[number][place] = values
