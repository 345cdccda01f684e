"""The filters and orders of a feature list, and the statement they make."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Double, Integer, Select, cast, exists, literal, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from interpedia_gateway.keysets import Kind, Paging
from interpedia_gateway.vocabulary import Words
from interpedia_shared.db.models import Explanation, Feature
from interpedia_shared.problems import Invalid

Sort = Literal["index", "density", "max_activation"]
Order = Literal["asc", "desc"]
Density = Annotated[
    float | None, Query(ge=0, le=1, allow_inf_nan=False, description="Fraction of counted tokens.")
]
SummaryColumns = Select[int, float, int, float, float, list[int], list[int]]

_TOKEN_ID = re.compile(r"[0-9]{1,9}", re.ASCII)
_QUOTED = re.compile(r'"(.+)"', re.DOTALL)
_SORTED_BY: dict[Sort, InstrumentedAttribute[float]] = {
    "density": Feature.density,
    "max_activation": Feature.max_activation,
}
SUMMARY_COLUMNS = (
    Feature.idx,
    Feature.density,
    Feature.n_active_tokens,
    Feature.max_activation,
    Feature.mean_activation,
    Feature.top_logit_ids,
    Feature.peak_token_ids,
)


@dataclass(frozen=True, slots=True)
class FeatureFilter:
    """What a list of features is narrowed to and how it is ordered."""

    sort: Sort = "index"
    order: Order = "asc"
    min_density: float | None = None
    max_density: float | None = None
    promotes: str | None = None
    has_explanation: bool | None = None
    alive: bool | None = None

    def check(self) -> None:
        """Refuse a range that can hold nothing.

        Raises:
            Invalid: min_density is above max_density.
        """
        low, high = self.min_density, self.max_density
        if low is not None and high is not None and low > high:
            raise Invalid.field("min_density", f"{low} is above max_density, {high}")


async def ordering_of(
    sort: Annotated[Sort, Query(description="What to order by.")] = "index",
    order: Annotated[Order, Query(description="Ascending or descending.")] = "asc",
) -> tuple[Sort, Order]:
    """The order of a request (a dependency)."""
    return sort, order


async def feature_filter(
    ordering: Annotated[tuple[Sort, Order], Depends(ordering_of)],
    *,
    min_density: Density = None,
    max_density: Density = None,
    promotes: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            description="A token among the feature's top logits: its text exactly as shown, leading space "
            'included, or its id. A text that is a number goes in double quotes: `"42"`.',
            examples=[" river"],
        ),
    ] = None,
    has_explanation: Annotated[bool | None, Query(description="Only features with, or without, one.")] = None,
    alive: Annotated[bool | None, Query(description="Only features that fired, or never did.")] = None,
) -> FeatureFilter:
    """The filter of a request (a dependency)."""
    wanted = FeatureFilter(*ordering, min_density, max_density, promotes, has_explanation, alive)
    wanted.check()
    return wanted


def token_of(promotes: str, words: Words) -> int:
    """The token id that `promotes` names.

    Raises:
        Invalid: an id outside the vocabulary, or a text that is no single token.
    """
    if _TOKEN_ID.fullmatch(promotes):
        if int(promotes) >= len(words):
            raise Invalid.field("promotes", f"token id {promotes} is outside 0..{len(words) - 1}")
        return int(promotes)
    quoted = _QUOTED.fullmatch(promotes)
    for text in (promotes, quoted.group(1) if quoted else None):
        found = words.vocabulary.find(text) if text is not None else None
        if found is not None:
            return found
    hint = ""
    if words.vocabulary.find(f" {promotes}") is not None:
        hint = f"; there is '{promotes}' with a leading space"
    raise Invalid.field("promotes", f"no single token is shown as '{promotes}'{hint}")


def scope_of(version_id: int, wanted: FeatureFilter) -> dict[str, Any]:
    """What a cursor of this list is bound to."""
    return {"route": "features", "version": version_id, **asdict(wanted)}


def list_statement(
    version_id: int, sae_id: int, wanted: FeatureFilter, paging: Paging, token_id: int | None
) -> SummaryColumns:
    """The statement of one page, with one row too many; served by an index in every order."""
    conditions = [Feature.sae_version_id == version_id, *_conditions(sae_id, wanted, token_id)]
    column = _SORTED_BY.get(wanted.sort)
    keys: list[InstrumentedAttribute[Any]] = [Feature.idx] if column is None else [column, Feature.idx]
    kinds: list[Kind] = [int] if column is None else [float, int]
    if key := paging.key(scope_of(version_id, wanted), kinds):
        conditions.append(_after(keys, key, wanted.order))
    ordered = [column.asc() if wanted.order == "asc" else column.desc() for column in keys]
    return select(*SUMMARY_COLUMNS).where(*conditions).order_by(*ordered).limit(paging.limit + 1)


def _after(keys: list[InstrumentedAttribute[Any]], values: list[Any], order: Order) -> ColumnElement[bool]:
    types = [Double] * (len(keys) - 1) + [Integer]
    left = tuple_(*keys)
    right = tuple_(*(literal(value, kind) for value, kind in zip(values, types, strict=True)))
    return left > right if order == "asc" else left < right


def _conditions(sae_id: int, wanted: FeatureFilter, token_id: int | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.min_density is not None:
        conditions.append(Feature.density >= wanted.min_density)
    if wanted.max_density is not None:
        conditions.append(Feature.density <= wanted.max_density)
    if wanted.alive is not None:
        conditions.append(Feature.density > 0 if wanted.alive else Feature.density == 0)
    if token_id is not None:
        conditions.append(Feature.top_logit_ids.contains(cast([token_id], ARRAY(Integer))))
    if wanted.has_explanation is not None:
        explained = exists().where(Explanation.sae_id == sae_id, Explanation.feature_idx == Feature.idx)
        conditions.append(explained if wanted.has_explanation else ~explained)
    return conditions
