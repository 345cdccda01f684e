"""From the interventions of a request to changes that the decoder makes: checked, and in raw units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from interpedia_engine.errors import EngineError
from interpedia_engine.hooks import Hook, hook_width
from interpedia_engine.interventions import (
    Change,
    DirectionChange,
    FeatureChange,
    Positions,
    check_change,
)
from interpedia_engine.sites import site
from interpedia_inference.refusals import outside
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.stored import FeatureNumbers
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.steering import InterventionSpec
from interpedia_shared.problems import Invalid

_WITH_UNIT = ("add", "clamp")
_Numbers = Mapping[str, Mapping[int, FeatureNumbers]]


async def resolve_changes(
    visit: Visit, specs: Sequence[InterventionSpec], held: Mapping[str, HeldSAE], *, n_positions: int
) -> tuple[Change, ...]:
    """Check every intervention and turn it into a change.

    Args:
        visit: The request's.
        specs: In the order of the request.
        held: The SAEs that they name, whose features exist.
        n_positions: Most tokens that prompt and output may have together.

    Raises:
        Invalid: names the intervention's field: a vector of the wrong width, an unknown or unwritable hook, a
            unit that is not known, a position that cannot come, a change too large for the model's numbers.
    """
    for number, spec in enumerate(specs):
        if spec.unit is not None and spec.method not in _WITH_UNIT:
            detail = f"is of the strength of {' and '.join(_WITH_UNIT)}, the method is {spec.method}"
            raise Invalid.field(f"#/interventions/{number}/unit", detail)
    numbers = await _stored(visit, specs, held)
    changes: list[Change] = []
    for number, spec in enumerate(specs):
        where = f"#/interventions/{number}"
        positions = _positions(spec, n_positions, where)
        if spec.sae is not None and spec.feature is not None:
            sae = held[spec.sae]
            _check_writable(visit, sae.hook_out, f"{where}/sae")
            strength = spec.strength * _unit(spec, sae, numbers, where)
            changes.append(
                FeatureChange(sae.sae, sae.hook, sae.hook_out, spec.feature, spec.method, strength, positions)
            )
        else:
            changes.append(_direction(visit, spec, positions, where))
        try:
            check_change(changes[-1], visit.model)
        except EngineError as error:
            raise Invalid.field(f"{where}/{error.field}", error.detail) from error
    return tuple(changes)


def _needs_unit(spec: InterventionSpec) -> bool:
    return spec.sae is not None and spec.method in _WITH_UNIT and spec.unit != "raw"


async def _stored(visit: Visit, specs: Sequence[InterventionSpec], held: Mapping[str, HeldSAE]) -> _Numbers:
    """Stored numbers of the features whose strength is in units of their maximum, by SAE and index."""
    wanted: dict[str, list[int]] = {}
    for spec in specs:
        if spec.sae is not None and spec.feature is not None and _needs_unit(spec):
            wanted.setdefault(spec.sae, []).append(spec.feature)
    found: dict[str, Mapping[int, FeatureNumbers]] = {}
    for slug, features in wanted.items():
        version_id = held[slug].version_id
        if version_id is not None:
            found[slug] = await visit.stored.of(version_id, features)
    return found


def _unit(spec: InterventionSpec, sae: HeldSAE, numbers: _Numbers, where: str) -> float:
    """What the strength is multiplied by: the feature's maximum on its corpus, or 1.

    Raises:
        Invalid: the maximum is asked for and not known, or is 0.
    """
    if not _needs_unit(spec):
        return 1.0
    stored = numbers.get(sae.slug, {}).get(spec.feature or 0)
    if stored is None:
        fact = f"{sae.slug} has no dashboards yet, so the maximum of feature {spec.feature} is not known"
    elif stored.max_activation == 0:
        fact = f"feature {spec.feature} of {sae.slug} never fired on its corpus, so its maximum is 0"
    else:
        return stored.max_activation
    raise Invalid.field(f"{where}/unit", f"{fact}; give the strength in unit raw")


def _positions(spec: InterventionSpec, n_positions: int, where: str) -> Positions:
    if isinstance(spec.positions, str):
        return spec.positions
    for number, position in enumerate(spec.positions):
        if position >= n_positions:
            raise outside(
                f"{where}/positions/{number}",
                position,
                first=0,
                last=n_positions - 1,
                of="the positions of prompt and new tokens",
            )
    return frozenset(spec.positions)


def _direction(visit: Visit, spec: InterventionSpec, positions: Positions, where: str) -> DirectionChange:
    """A change along a vector of the caller's own.

    Raises:
        Invalid: the hook cannot be written, or the vector is not as wide as it or has no direction.
    """
    hook = visit.hook(f"{where}/hook", spec.hook or "")
    _check_writable(visit, hook, f"{where}/hook")
    vector = torch.tensor(spec.vector, dtype=torch.float32)
    width = hook_width(hook, visit.model.shape)
    if len(vector) != width:
        detail = f"has {len(vector)} numbers, but {hook.name} has width {width}"
        raise Invalid.field(f"{where}/vector", detail, limit=width, value=len(vector))
    norm = float(vector.double().norm())
    if not math.isfinite(norm) or norm == 0:
        raise Invalid.field(f"{where}/vector", f"its length must be positive and finite, it is {norm}")
    return DirectionChange(vector, hook, spec.method, spec.strength, positions)


def _check_writable(visit: Visit, hook: Hook, where: str) -> None:
    model = visit.model
    reason = site(model.hf, hook, architecture=model.shape.architecture).read_only_because
    if reason is not None:
        raise Invalid.field(where, f"{hook.name} can be read, not written: {reason}")
