"""What is stored about features goes into the answers of hosts, which know weights and texts only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Integer, func, literal, select, true
from sqlalchemy.dialects.postgresql import ARRAY

from interpedia_gateway.catalogue.lookup import SAEPlace
from interpedia_shared.db.models import Explanation, Feature
from interpedia_shared.db.session import ReadSession

Json = dict[str, Any]
NamedFeature = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database knows of one feature; None where a build or an explanation is missing."""

    density: float | None
    max_activation: float | None
    explanation: str | None


NOTHING = Stored(None, None, None)


def top_features(answer: Json) -> list[Json]:
    """All features in an answer of `/v1/activations/top`."""
    by_token: list[Json] = answer.get("by_token") or []
    return [*answer["results"], *(feature for one in by_token for feature in one["top"])]


async def join_numbers(session: ReadSession, answer: Json, places: Mapping[str, SAEPlace]) -> None:
    """Fill density, maximum and explanation into the features of `/v1/activations/top`.

    The numbers come from the build that the host filtered by, which the provenance names; if it looked at
    none, from the current one, which is then named there.
    """
    versions: dict[str, int | None] = {}
    for source in answer["provenance"]["saes"]:
        place = places.get(source["sae"])
        if place is not None:
            source["version"] = versions[place.sae] = source["version"] or place.current_version_id
    features = top_features(answer)
    stored = await read_stored(session, places, versions, _named(features))
    for feature in features:
        known = stored.get((feature["sae"], feature["index"]), NOTHING)
        feature["density"], feature["max_activation"] = known.density, known.max_activation
        feature["explanation"] = known.explanation


async def join_explanations(session: ReadSession, answer: Json, places: Mapping[str, SAEPlace]) -> None:
    """Fill the explanation into the features of `/v1/attribute`."""
    stored = await read_stored(session, places, {}, _named(answer["results"]))
    for feature in answer["results"]:
        feature["explanation"] = stored.get((feature["sae"], feature["index"]), NOTHING).explanation


def _named(features: Iterable[Json]) -> set[NamedFeature]:
    return {(feature["sae"], feature["index"]) for feature in features}


async def read_stored(
    session: ReadSession,
    places: Mapping[str, SAEPlace],
    versions: Mapping[str, int | None],
    wanted: Iterable[NamedFeature],
) -> dict[NamedFeature, Stored]:
    """What is stored of some features, in one statement.

    Each feature is looked up by key: LIMIT keeps the planner from turning the look-ups into a join that would
    read all partitions.
    """
    keys = sorted((sae, index) for sae, index in wanted if sae in places)
    if not keys:
        return {}
    slugs = {place.id: place.sae for place in places.values()}
    asked = (
        func.unnest(
            literal([places[sae].id for sae, _ in keys], ARRAY(BigInteger)),
            literal([versions.get(sae) for sae, _ in keys], ARRAY(BigInteger)),
            literal([index for _, index in keys], ARRAY(Integer)),
        )
        .table_valued("sae", "version", "idx", name="asked")
        .render_derived()
    )
    numbers = (
        select(Feature.density, Feature.max_activation)
        .where(Feature.sae_version_id == asked.c.version, Feature.idx == asked.c.idx)
        .limit(1)
        .lateral("numbers")
    )
    meaning = (
        select(Explanation.text)
        .where(Explanation.sae_id == asked.c.sae, Explanation.feature_idx == asked.c.idx)
        .order_by(Explanation.is_default.desc(), Explanation.id.desc())
        .limit(1)
        .lateral("meaning")
    )
    statement = select(
        asked.c.sae, asked.c.idx, numbers.c.density, numbers.c.max_activation, meaning.c.text
    ).select_from(asked.outerjoin(numbers, true()).outerjoin(meaning, true()))
    return {
        (slugs[sae], index): Stored(density, largest, text)
        for sae, index, density, largest, text in await session.execute(statement)
    }
