"""Reads of features by one caller."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from interpedia_gateway.catalogue.lookup import SAEPlace, VersionPlace, find_sae
from interpedia_gateway.explanations.shown import NOTHING_SAID, said_of
from interpedia_gateway.features import rendering, repository
from interpedia_gateway.features.dashboards import Setting, dashboards
from interpedia_gateway.features.filters import FeatureFilter, list_statement, scope_of, token_of
from interpedia_gateway.features.repository import FeatureRow, SummaryRow
from interpedia_gateway.features.schemas import (
    CoactiveFeature,
    Dashboard,
    FeatureSummary,
    NearestFeature,
    NeighboursOut,
    VectorOut,
)
from interpedia_gateway.features.vectors import Direction, NoTensor, Which, read_direction, unit_direction
from interpedia_gateway.keysets import Paging
from interpedia_gateway.state import Gateway
from interpedia_gateway.vocabulary import Words
from interpedia_shared.auth import Caller
from interpedia_shared.dashboards import decode_stats
from interpedia_shared.db.session import ReadSession
from interpedia_shared.problems import FeatureNotFound, NotFound, Unavailable
from interpedia_shared.schemas import Page


@dataclass(frozen=True, slots=True)
class Asked:
    """Which SAE, and which build of it; None is the current one."""

    model: str
    sae: str
    version: int | None = None


class Features:
    """Features of SAEs that one caller may see."""

    def __init__(self, gateway: Gateway, session: ReadSession, caller: Caller | None, base_url: str) -> None:
        self._gateway = gateway
        self._session = session
        self._caller = caller
        self._base_url = base_url

    async def place(self, asked: Asked) -> SAEPlace:
        """The SAE asked for."""
        return await find_sae(self._session, asked.model, asked.sae, self._caller)

    async def setting(self, place: SAEPlace, version: int | None) -> Setting:
        """What all features of one build share.

        Raises:
            VersionNotFound: nothing is published yet, or not this version.
        """
        found = await self._gateway.versions.find(self._session, place, version)
        words = await self._words(found)
        return Setting(place, found, words, self._caller, self._base_url)

    async def _words(self, version: VersionPlace) -> Words:
        return await self._gateway.vocabularies.words(self._session, version.corpus.tokenizer_hash)

    async def list(
        self, asked: Asked, wanted: FeatureFilter, paging: Paging
    ) -> tuple[Page[FeatureSummary], SAEPlace]:
        """One page of features."""
        place = await self.place(asked)
        setting = await self.setting(place, asked.version)
        token_id = None if wanted.promotes is None else token_of(wanted.promotes, setting.words)
        statement = list_statement(setting.version.id, place.id, wanted, paging, token_id)
        rows = await repository.summaries(self._session, statement)
        items = await self.summarise(setting, rows)
        keys = {row.idx: _sort_key(row, wanted) for row in rows}
        page = paging.page(items, scope_of(setting.version.id, wanted), lambda item: keys[item.index])
        return page, place

    async def summarise(self, setting: Setting, rows: list[SummaryRow]) -> list[FeatureSummary]:
        """Rows as lists show them."""
        indices = [row.idx for row in rows]
        said = await said_of(self._session, setting.place.id, indices)
        return [
            rendering.summary(setting.place, row, setting.words, said.get(row.idx, NOTHING_SAID))
            for row in rows
        ]

    async def row(self, asked: Asked, index: int) -> tuple[Setting, FeatureRow]:
        """One feature's row.

        Raises:
            FeatureNotFound: the index is outside the SAE, or this build has no such row.
        """
        place = await self.place(asked)
        place.check_index(index)
        setting = await self.setting(place, asked.version)
        row = await repository.feature(self._session, setting.version.id, index)
        if row is None:
            raise FeatureNotFound(place.model, place.sae, index, place.d_sae)
        return setting, row

    async def dashboard(self, asked: Asked, index: int) -> tuple[Dashboard, SAEPlace]:
        """One feature's dashboard."""
        setting, row = await self.row(asked, index)
        (found,) = await dashboards(self._session, setting, [row])
        return found, setting.place

    async def neighbours(self, asked: Asked, index: int) -> tuple[NeighboursOut, SAEPlace]:
        """One feature's neighbours with their own numbers."""
        setting, row = await self.row(asked, index)
        stats = decode_stats(row.stats)
        near, together = rendering.nearest(setting.place, stats), rendering.coactive(setting.place, stats)
        indices = {found.index for found in (*near, *together)}
        rows = await repository.summaries_of(self._session, setting.version.id, indices)
        shown = {item.index: item for item in await self.summarise(setting, list(rows.values()))}
        out = NeighboursOut(
            **rendering.name_of(setting.place, index),  # pyright: ignore[reportArgumentType]
            nearest=[
                NearestFeature(**shown[found.index].model_dump(), cosine=found.cosine)
                for found in near
                if found.index in shown
            ],
            coactive=[
                CoactiveFeature(
                    **shown[found.index].model_dump(), pearson=found.pearson, n_tokens=found.n_tokens
                )
                for found in together
                if found.index in shown
            ],
        )
        return out, setting.place

    async def vector(self, asked: Asked, index: int, which: Which) -> tuple[VectorOut, SAEPlace]:
        """One feature's direction; it belongs to the weights, so it is there before any dashboard is.

        Raises:
            FeatureNotFound: the index is outside the SAE.
            NotFound: the architecture has no encoder of its own.
            Unavailable: the weights cannot be read.
        """
        place = await self.place(asked)
        place.check_index(index)
        hook, hook_out = await repository.hooks(self._session, place.id)
        direction = await self._direction(place, index, which)
        return (
            VectorOut(
                **rendering.name_of(place, index),  # pyright: ignore[reportArgumentType]
                which=which,
                hook=(hook_out or hook) if which == "decoder" else hook,
                dtype=direction.dtype,
                norm=float(np.linalg.norm(direction.values.astype(np.float64))),
                values=direction.values.tolist(),
            ),
            place,
        )

    async def _direction(self, place: SAEPlace, index: int, which: Which) -> Direction:
        if place.architecture == "identity":
            return unit_direction(place.d_in, index)
        if place.weights_uri is None:
            raise Unavailable(f"{place.model}/{place.sae} has no weights here yet.", retry_after_s=30)
        file = self._gateway.blobs.path(place.weights_uri)
        try:
            return await asyncio.to_thread(read_direction, file, which, index)
        except NoTensor as error:
            raise NotFound(
                f"{place.model}/{place.sae} ({place.architecture}) has no {which} of its own.",
                extensions={"model": place.model, "sae": place.sae, "which": which},
            ) from error


def _sort_key(row: SummaryRow, wanted: FeatureFilter) -> list[float]:
    if wanted.sort == "index":
        return [row.idx]
    return [row.density if wanted.sort == "density" else row.max_activation, row.idx]
