"""A row's changes in the order in which they act, and the arithmetic of each kind for many tokens at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interpedia_engine.hooks import Hook
from interpedia_engine.interventions.changes import (
    ON_ACTIVATIONS,
    Change,
    FeatureChange,
    Positions,
    changes_nothing,
)
from interpedia_engine.interventions.splice import (
    decoder_rows_of,
    has_token_scale,
    read_features,
    token_scale,
)
from interpedia_engine.saes.base import SAE

_MOST_ROUNDS, _MOST_TAKEN = 8, 16.0


@dataclass(frozen=True, eq=False)
class Constant:
    """Adds a vector."""

    vector: Float[Tensor, " d"]
    positions: Positions

    @property
    def kind(self) -> tuple[object, ...]:
        """Steps of equal kinds can be taken together, one of each row."""
        return (Constant,)

    @property
    def positions_of_parts(self) -> tuple[Positions, ...]:
        """Where each part of the step acts."""
        return (self.positions,)


@dataclass(frozen=True, eq=False)
class AlongDirection:
    """Adds (gain · h·d̂ + offset) d̂; or min(0, cap − h·d̂) d̂ where `is_cap`, with the cap in `offset`."""

    unit: Float[Tensor, " d"]
    gain: float
    offset: float
    is_cap: bool
    positions: Positions

    @property
    def kind(self) -> tuple[object, ...]:
        """Steps of equal kinds can be taken together, one of each row."""
        return (AlongDirection,)

    @property
    def positions_of_parts(self) -> tuple[Positions, ...]:
        """Where each part of the step acts."""
        return (self.positions,)


@dataclass(frozen=True, eq=False)
class OnCode:
    """Changes activations of one SAE."""

    sae: SAE
    hook: Hook
    hook_out: Hook
    changes: tuple[FeatureChange, ...]

    @property
    def kind(self) -> tuple[object, ...]:
        """Steps of equal kinds can be taken together, one of each row."""
        return (OnCode, id(self.sae), self.hook, self.hook_out)

    @property
    def positions_of_parts(self) -> tuple[Positions, ...]:
        """Where each part of the step acts."""
        return tuple(change.positions for change in self.changes)


Step = Constant | AlongDirection | OnCode


def steps_of(changes: Sequence[Change]) -> dict[Hook, list[Step]]:
    """Return what is done at each hook that is written, in order; see `changes` for the order."""
    steps: dict[Hook, list[Step]] = {}
    codes: dict[tuple[object, ...], list[FeatureChange]] = {}
    places: list[tuple[Hook, Step | tuple[object, ...]]] = []
    for change in changes:
        if changes_nothing(change):
            continue
        if isinstance(change, FeatureChange) and change.method in ON_ACTIVATIONS:
            key = (id(change.sae), change.hook, change.hook_out)
            if key not in codes:
                codes[key] = []
                places.append((change.hook_out, key))
            codes[key].append(change)
        else:
            hook = change.hook_out if isinstance(change, FeatureChange) else change.hook
            places.append((hook, _on_stream(change)))
    for hook, place in places:
        found = _on_code(codes[place]) if isinstance(place, tuple) else [place]
        steps.setdefault(hook, []).extend(found)
    return steps


def _on_code(changes: Sequence[FeatureChange]) -> list[Step]:
    first = changes[0]
    if has_token_scale(first.sae) or any(change.method != "add" for change in changes):
        return [OnCode(first.sae, first.hook, first.hook_out, tuple(changes))]
    return [
        Constant(change.strength * decoder_rows_of(first.sae, [change.index])[0], change.positions)
        for change in changes
    ]


def _on_stream(change: Change) -> Step:
    if isinstance(change, FeatureChange):
        direction = decoder_rows_of(change.sae, [change.index])[0]
    else:
        direction = change.vector
    if change.method == "add":
        return Constant(change.strength * direction, change.positions)
    wide = direction.to(torch.float64)
    norm = wide.norm()
    # A decoder row of zeros has no direction, so that the stream has no part along it.
    unit = (wide / norm if norm > 0 else wide).to(torch.float32)
    gain, offset = {
        "clamp": (-1.0, change.strength),
        "scale": (change.strength - 1.0, 0.0),
        "ablate": (-1.0, 0.0),
        "orthogonal": (-change.strength, 0.0),
        "project_cap": (0.0, change.strength),
    }[change.method]
    return AlongDirection(unit, gain, offset, change.method == "project_cap", change.positions)


class Round(ABC):
    """Steps of one kind, one of each of some rows, taken together.

    A token is given as the number of a *pattern*: which step it belongs to, and which parts of it act there.
    """

    reads: Hook | None = None
    """Another hook whose stream is needed."""

    @abstractmethod
    def delta(
        self, stream: Float[Tensor, "n d"], read: Float[Tensor, "n d_in"], patterns: Int[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """Return what is added to each token."""

    @abstractmethod
    def add_pattern(self, step: int, parts: tuple[bool, ...]) -> None:
        """Prepare the next pattern, numbered from 0."""


class ConstantRound(Round):
    """Adds to each token the vector of its step."""

    def __init__(self, steps: Sequence[Constant]) -> None:
        self._steps = steps
        self._table: list[Tensor] = []
        self._stacked: Tensor | None = None

    def add_pattern(self, step: int, parts: tuple[bool, ...]) -> None:
        """Prepare the next pattern."""
        del parts  # there is one, and it acts
        self._table.append(self._steps[step].vector)
        self._stacked = None

    def delta(self, stream: Tensor, read: Tensor, patterns: Tensor) -> Tensor:
        """Return the vectors."""
        del read  # nothing is
        if self._stacked is None or self._stacked.device != stream.device:
            self._stacked = torch.stack([vector.to(stream.device, torch.float32) for vector in self._table])
        return self._stacked[patterns]


class DirectionRound(Round):
    """Changes the stream's part along a direction."""

    def __init__(self, steps: Sequence[AlongDirection]) -> None:
        self._steps = steps
        self._table: list[AlongDirection] = []
        self._stacked: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def add_pattern(self, step: int, parts: tuple[bool, ...]) -> None:
        """Prepare the next pattern."""
        del parts  # there is one, and it acts
        self._table.append(self._steps[step])
        self._stacked = None

    def delta(self, stream: Tensor, read: Tensor, patterns: Tensor) -> Tensor:
        """Return the part along the direction that is to be added, in float32."""
        del read  # it is the stream itself
        if self._stacked is None or self._stacked[0].device != stream.device:
            self._stacked = self._stack(stream.device)
        units, gain, offset, is_cap = (tensor[patterns] for tensor in self._stacked)
        along = (stream.to(torch.float32) * units).sum(dim=-1)
        size = torch.where(is_cap, (offset - along).clamp(max=0.0), gain * along + offset)
        return size.unsqueeze(-1) * units

    def _stack(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        units = torch.stack([step.unit.to(device) for step in self._table])
        gain = torch.tensor([step.gain for step in self._table], device=device)
        offset = torch.tensor([step.offset for step in self._table], device=device)
        return units, gain, offset, torch.tensor([step.is_cap for step in self._table], device=device)


class CodeRound(Round):
    """Changes activations: each becomes an affine function of itself, f' − f = gain · f + offset.

    What is ablated is taken out further until the encoder reads nothing of it, see `silence`.
    """

    def __init__(self, steps: Sequence[OnCode]) -> None:
        first = steps[0]
        self._steps = steps
        self._sae = first.sae
        self.reads = first.hook if first.hook != first.hook_out else None
        features = sorted({change.index for step in steps for change in step.changes})
        self._column = {feature: column for column, feature in enumerate(features)}
        self._rows = decoder_rows_of(first.sae, features)
        self._read = read_features(first.sae, features)
        self._table: list[tuple[list[float], list[float], list[bool]]] = []
        self._stacked: tuple[Tensor, Tensor, Tensor] | None = None

    def add_pattern(self, step: int, parts: tuple[bool, ...]) -> None:
        """Prepare the next pattern."""
        width = len(self._column)
        gain, offset, silent = [0.0] * width, [0.0] * width, [False] * width
        for change, acts in zip(self._steps[step].changes, parts, strict=True):
            if acts:
                column = self._column[change.index]
                gain[column], offset[column] = _then(change, gain[column], offset[column])
                silent[column] = change.method == "ablate" or (silent[column] and change.method == "scale")
        self._table.append((gain, offset, silent))
        self._stacked = None

    def delta(self, stream: Tensor, read: Tensor, patterns: Tensor) -> Tensor:
        """Return the difference of the two decodings, in the SAE's dtype."""
        sae = self._sae
        x = read.to(sae.device)
        if self._stacked is None:
            self._stacked = self._stack()
        patterns = patterns.to(sae.device)
        gain, offset, silent = (table[patterns] for table in self._stacked)
        f = self._read(x) if bool((gain != 0).any()) else torch.zeros_like(gain)
        difference = torch.where(gain == 0, offset, gain * f + offset)
        scale = token_scale(sae, x)
        if self.reads is None and bool((loud := (silent & (f != 0)).any(dim=-1)).any()):
            part = None if scale is None else scale[loud]
            difference[loud] = self._silenced(x[loud], f[loud], difference[loud], silent[loud], part)
        delta = difference @ self._rows
        return (delta if scale is None else delta * scale).to(stream.device)

    def _silenced(
        self, x: Tensor, f: Tensor, difference: Tensor, silent: Tensor, scale: Tensor | None
    ) -> Tensor:
        def read_after(change: Tensor) -> Tensor:
            delta = change @ self._rows
            return self._read(x.to(delta.dtype) + (delta if scale is None else delta * scale))

        return silence(read_after, f, difference, silent)

    def _stack(self) -> tuple[Tensor, Tensor, Tensor]:
        gains, offsets, silent = zip(*self._table, strict=True)
        dtype, device = self._sae.dtype, self._sae.device
        return (
            torch.tensor(gains, dtype=dtype, device=device),
            torch.tensor(offsets, dtype=dtype, device=device),
            torch.tensor(silent, dtype=torch.bool, device=device),
        )


def silence(
    read_after: Callable[[Float[Tensor, "n c"]], Float[Tensor, "n c"]],
    f: Float[Tensor, "n c"],
    difference: Float[Tensor, "n c"],
    silent: Bool[Tensor, "n c"],
) -> Float[Tensor, "n c"]:
    """Take ablated features out until the encoder reads 0.

    Where encoder and decoder do not mirror each other, the stream without f·d still reads (1 − w·d) f. The
    amount is grown by the secant rule, a thousandth too far so that rounding leaves nothing, at most to
    `_MOST_TAKEN` times f; a feature that its own direction does not lower keeps the plain −f.

    Args:
        read_after: what the encoder reads of the features once `difference` of them has been added.
        f: what it reads now.
        difference: what is to be added of each, −f where it is ablated.
        silent: the ones that are ablated.
    """
    first = difference
    for _ in range(_MOST_ROUNDS):
        left = read_after(difference)
        gone = f - left
        wanted = silent & (left != 0) & (f != 0) & (gone * f > 0)
        if not bool(wanted.any()):
            break
        grown = 1.001 * difference * f / torch.where(wanted, gone, torch.ones_like(gone))
        grown = torch.where(grown.abs() > _MOST_TAKEN * f.abs(), first, grown)
        difference = torch.where(wanted, grown, difference)
    return difference


def _then(change: FeatureChange, gain: float, offset: float) -> tuple[float, float]:
    """Put one more change after f' = (1 + gain) f + offset."""
    if change.method == "add":
        return gain, offset + change.strength
    if change.method == "scale":
        return change.strength * (1.0 + gain) - 1.0, change.strength * offset
    return -1.0, change.strength if change.method == "clamp" else 0.0


def make_round(steps: Sequence[Step]) -> Round:
    """Return the round of steps of one kind."""
    constants = [step for step in steps if isinstance(step, Constant)]
    if constants:
        return ConstantRound(constants)
    directions = [step for step in steps if isinstance(step, AlongDirection)]
    if directions:
        return DirectionRound(directions)
    return CodeRound([step for step in steps if isinstance(step, OnCode)])
