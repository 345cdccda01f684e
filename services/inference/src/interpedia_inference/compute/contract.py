"""What can be asked of the compute thread, and what it gives back.

One thread owns torch. It takes four kinds of work and interleaves them, a slice at a time:

- **read**: a text's tokens and what to read on them. Texts of all callers share forward passes, formed by
  tokens and layers; the activations are captured once for all hooks asked for, and each SAE encodes the rows
  of a batch together.
- **generate**: prompts with their interventions; the rows of all callers share one running batch.
- **call**: a generator function of the engine (ablation, attribution, search), advanced one `next` at a time.
- **run**: a plain function that takes at most ~0.3 s.

Every piece of work carries the ticket of its request. Once a ticket is over (deadline, hang-up) nothing of it
is begun any more, and what runs stops after the slice in hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interpedia_engine.hooks import Hook
from interpedia_inference.shelf.held import HeldSAE

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureColumns:
    """Some features of one SAE. Result: float32 [pos, n_features], NaN where the position is not counted.

    Only these features are encoded where the architecture allows it.
    """

    sae: HeldSAE
    features: tuple[int, ...]
    """Indices within 0..d_sae (the caller has checked); the result's columns are in this order."""


@dataclass(frozen=True, slots=True, eq=False)
class AllFeatures:
    """All non-zero activations of one SAE at the counted positions. Result: `SparseValues`."""

    sae: HeldSAE


@dataclass(frozen=True, slots=True, eq=False)
class DirectionValues:
    """The dot product of a direction with what is at its hook. Result: float32 [pos], NaN if not counted."""

    hook: Hook
    vector: Floats
    """float32 [d], d being the hook's width (the caller has checked)."""


@dataclass(frozen=True, slots=True, eq=False)
class RawActivations:
    """What is at a hook. Result: float32 [pos, d], at all positions, counted or not."""

    hook: Hook


Reading = FeatureColumns | AllFeatures | DirectionValues | RawActivations


class SparseValues(NamedTuple):
    """Activations that are not zero: three arrays of one length, by position, then feature."""

    position: Indices
    feature: Indices
    value: Floats


ReadResult = Floats | SparseValues


@dataclass(frozen=True, slots=True, eq=False)
class ReadJob:
    """One text and what to read on it."""

    token_ids: Sequence[int]
    """At least one, at most the model's context; BOS included where the caller wants one."""
    readings: Sequence[Reading]
    counted: Flags | None = None
    """bool [pos]: positions that are encoded; None counts all. BOS usually does not count."""


def hook_of(reading: Reading) -> Hook:
    """Where a reading reads."""
    return reading.sae.hook if isinstance(reading, FeatureColumns | AllFeatures) else reading.hook
