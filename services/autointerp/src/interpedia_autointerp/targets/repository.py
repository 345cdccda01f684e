"""From refs and filters to rows, with visibility checked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select

from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.contracts.autointerp import FeatureChoice
from interpedia_shared.db.models import SAE, Feature
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import FeatureNotFound, SAENotFound, VersionNotFound


@dataclass(frozen=True, slots=True)
class Target:
    """Features of one SAE, in the build that is current."""

    sae_id: int
    version_id: int
    model: str
    sae: str
    indices: tuple[int, ...]
    is_private: bool = False

    def ref(self, index: int) -> FeatureRef:
        """One feature's name."""
        return FeatureRef(self.model, self.sae, index)

    def parts(self, size: int) -> Iterator[tuple[int, ...]]:
        """The features in tasks of about one size."""
        count = -(-len(self.indices) // size)
        for number in range(count):
            first, last = number * len(self.indices) // count, (number + 1) * len(self.indices) // count
            yield self.indices[first:last]


async def visible_sae(session: ReadSession | WriteSession, model: str, sae: str, caller: Caller) -> SAE:
    """One SAE with a published build.

    Raises:
        SAENotFound: there is none, or it is somebody else's private one.
        VersionNotFound: its dashboards are not built yet.
    """
    row = await session.scalar(select(SAE).where(SAE.model_id == model, SAE.slug == sae))
    is_own = row is not None and (row.account_id == caller.account_id or SCOPE_ADMIN in caller.scopes)
    if row is None or (row.visibility == "private" and not is_own):
        raise SAENotFound(model, sae)
    if row.current_version_id is None:
        raise VersionNotFound(f"SAE '{model}/{sae}' has no dashboards yet.", extensions={"sae": sae})
    return row


async def chosen_features(session: ReadSession, choice: FeatureChoice, caller: Caller) -> list[Target]:
    """The features of an order by SAE, each list ascending; dead ones are left out of whole SAEs.

    Raises:
        SAENotFound, VersionNotFound, FeatureNotFound: something named is not there.
    """
    if choice.saes:
        names = [tuple(each.split("/")) for each in dict.fromkeys(choice.saes)]
        return [await _whole(session, model, sae, choice, caller) for model, sae in names]
    by_sae: dict[tuple[str, str], list[int]] = defaultdict(list)
    for ref in map(FeatureRef.parse, choice.features):
        by_sae[ref.model, ref.sae].append(ref.index)
    return [await _named(session, *name, sorted(indices), caller) for name, indices in by_sae.items()]


async def _named(
    session: ReadSession, model: str, sae: str, indices: Sequence[int], caller: Caller
) -> Target:
    row = await visible_sae(session, model, sae, caller)
    known = set(
        await session.scalars(
            select(Feature.idx).where(
                Feature.sae_version_id == row.current_version_id,
                Feature.idx.in_([index for index in indices if index < row.d_sae]),
            )
        )
    )
    for index in indices:
        if index not in known:
            raise FeatureNotFound(model, sae, index, row.d_sae)
    return _target(row, indices)


async def _whole(session: ReadSession, model: str, sae: str, choice: FeatureChoice, caller: Caller) -> Target:
    row = await visible_sae(session, model, sae, caller)
    indices = list(await session.scalars(_alive(row.current_version_id, choice)))
    if choice.sample is not None and choice.sample < len(indices):
        seed = choice.sample_seed
        drawn = sorted(indices, key=lambda index: hashlib.sha256(f"{seed} {index}".encode()).digest())
        indices = sorted(drawn[: choice.sample])
    return _target(row, indices)


def _alive(version_id: int | None, choice: FeatureChoice) -> Select[int]:
    statement = select(Feature.idx).where(Feature.sae_version_id == version_id, Feature.density > 0)
    if choice.min_density is not None:
        statement = statement.where(Feature.density >= choice.min_density)
    if choice.max_density is not None:
        statement = statement.where(Feature.density <= choice.max_density)
    return statement.order_by(Feature.idx)


def _target(row: SAE, indices: Sequence[int]) -> Target:
    assert row.current_version_id is not None
    return Target(
        row.id, row.current_version_id, row.model_id, row.slug, tuple(indices), row.visibility == "private"
    )
