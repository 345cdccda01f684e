"""What a search is narrowed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query
from sqlalchemy import select

from interpedia_gateway.catalogue.lookup import check_model, find_release, find_sae, listed_for
from interpedia_gateway.features.filters import Density
from interpedia_shared.auth import Caller
from interpedia_shared.db.models import SAE, Account
from interpedia_shared.db.session import ReadSession
from interpedia_shared.problems import Invalid


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """The filters of a request, by the names that callers use."""

    model: str | None = None
    sae: str | None = None
    release: str | None = None
    author: str | None = None
    min_score: float | None = None
    min_density: float | None = None
    max_density: float | None = None

    def check(self) -> None:
        """Refuse filters that contradict themselves.

        Raises:
            Invalid: `sae` without its model, or min_density above max_density.
        """
        if self.sae is not None and self.model is None:
            raise Invalid.field("sae", "names an SAE within a model: give `model` too")
        low, high = self.min_density, self.max_density
        if low is not None and high is not None and low > high:
            raise Invalid.field("min_density", f"{low} is above max_density, {high}")


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The same by the keys of rows, for one caller.

    Attributes:
        sae_ids: the SAEs that are searched; None for all that the caller finds in lists.
    """

    caller_id: int | None
    model: str | None = None
    sae_ids: list[int] | None = None
    author_id: int | None = None
    min_score: float | None = None
    min_density: float | None = None
    max_density: float | None = None

    @property
    def needs_explanation(self) -> bool:
        """Whether only features with an explanation of some kind can be found."""
        return self.author_id is not None or self.min_score is not None

    @property
    def is_filter(self) -> bool:
        """Whether it leaves out anything that the caller could find."""
        bounds = (self.sae_ids, self.min_density, self.max_density)
        return self.needs_explanation or any(bound is not None for bound in bounds)


async def search_place(
    model: Annotated[
        str | None, Query(max_length=128, description="Id of a model.", examples=["smollm2-135m-instruct"])
    ] = None,
    sae: Annotated[
        str | None,
        Query(max_length=128, description="Id of an SAE within `model`.", examples=["15-res-3k"]),
    ] = None,
    release: Annotated[
        str | None, Query(max_length=128, description="Id of a release.", examples=["demo"])
    ] = None,
    author: Annotated[
        str | None,
        Query(max_length=200, description="Name of the account whose explanations are searched."),
    ] = None,
) -> SearchFilter:
    """Where to search (a dependency)."""
    return SearchFilter(model, sae, release, author)


async def search_filter(
    place: Annotated[SearchFilter, Depends(search_place)],
    min_score: Annotated[
        float | None,
        Query(ge=-1, le=1, allow_inf_nan=False, description="Least `best_score` of the explanation."),
    ] = None,
    min_density: Density = None,
    max_density: Density = None,
) -> SearchFilter:
    """The filters of a request (a dependency)."""
    wanted = SearchFilter(
        place.model, place.sae, place.release, place.author, min_score, min_density, max_density
    )
    wanted.check()
    return wanted


async def narrow(session: ReadSession, wanted: SearchFilter, caller: Caller | None) -> Narrowed:
    """Find the rows that the filters name.

    Raises:
        ModelNotFound: no such model.
        SAENotFound: no such SAE, or a private one of somebody else.
        ReleaseNotFound: no such release.
        Invalid: no account has the author's name.
    """
    author_id = None
    sae_ids = await _places(session, wanted, caller)
    if wanted.author is not None:
        if "\x00" not in wanted.author:  # which no text in Postgres can hold
            author_id = await session.scalar(select(Account.id).where(Account.name == wanted.author))
        if author_id is None:
            raise Invalid.field("author", f"no account is called '{wanted.author}'")
    return Narrowed(
        None if caller is None else caller.account_id,
        wanted.model,
        sae_ids,
        author_id,
        wanted.min_score,
        wanted.min_density,
        wanted.max_density,
    )


async def _places(session: ReadSession, wanted: SearchFilter, caller: Caller | None) -> list[int] | None:
    """Ids of the SAEs in a model, of a release, or named; None where none of these is asked for."""
    if wanted.model is None and wanted.release is None:
        return None
    statement = select(SAE.id).order_by(SAE.id)
    if wanted.sae is not None and wanted.model is not None:
        statement = statement.where(SAE.id == (await find_sae(session, wanted.model, wanted.sae, caller)).id)
    else:
        if wanted.model is not None:
            await check_model(session, wanted.model)
            statement = statement.where(SAE.model_id == wanted.model)
        statement = statement.where(listed_for(caller))
    if wanted.release is not None:
        statement = statement.where(SAE.release_id == await find_release(session, wanted.release))
    return list(await session.scalars(statement))
