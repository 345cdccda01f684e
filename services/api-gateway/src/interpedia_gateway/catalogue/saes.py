"""SAEs, as one caller sees them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select, tuple_

from interpedia_gateway.catalogue.lookup import check_model, find_release, find_sae, latest_job, listed_for
from interpedia_gateway.catalogue.schemas import JobRef, SAEDetail, SAEOut, VersionOut, WeightsOut
from interpedia_gateway.catalogue.service import shown_provenance
from interpedia_gateway.keysets import Paging
from interpedia_shared.auth import Caller
from interpedia_shared.db.models import SAE, Corpus, Job, Release, SAEVersion
from interpedia_shared.db.session import ReadSession
from interpedia_shared.schemas import Page

WEIGHTS_FILES = ("cfg.json", "sae_weights.safetensors")
MAX_VERSIONS = 100


@dataclass(frozen=True, slots=True)
class SAEFilter:
    """What a list of SAEs is narrowed to."""

    model: str | None = None
    architecture: str | None = None
    release: str | None = None


class SAECatalogue:
    """Reads of SAEs by one caller."""

    def __init__(self, session: ReadSession, caller: Caller | None) -> None:
        self._session = session
        self._caller = caller

    async def list(self, wanted: SAEFilter, paging: Paging) -> Page[SAEOut]:
        """SAEs by model, layer and id.

        Raises:
            ModelNotFound: filtered by a model that is not here.
            ReleaseNotFound: filtered by a release that is not here.
        """
        order = (SAE.model_id, SAE.layer, SAE.slug)
        scope = {"route": "saes", **asdict(wanted)}
        statement = select(SAE, Release.slug).outerjoin(Release, Release.id == SAE.release_id)
        statement = statement.where(listed_for(self._caller))
        if wanted.model is not None:
            await check_model(self._session, wanted.model)
            statement = statement.where(SAE.model_id == wanted.model)
        if wanted.release is not None:
            release_id = await find_release(self._session, wanted.release)
            statement = statement.where(SAE.release_id == release_id)
        if wanted.architecture is not None:
            statement = statement.where(SAE.architecture == wanted.architecture)
        if key := paging.key(scope, (str, int, str)):
            statement = statement.where(tuple_(*order) > tuple_(*key))
        statement = statement.order_by(*order).limit(paging.limit + 1)
        items = [SAEOut(**_fields(sae, release)) for sae, release in await self._session.execute(statement)]
        return paging.page(items, scope, lambda sae: [sae.model, sae.layer, sae.sae])

    async def get(self, model: str, sae: str) -> SAEDetail:
        """One SAE with its builds.

        Raises:
            ModelNotFound: no such model.
            SAENotFound: no such SAE that this caller may see.
        """
        place = await find_sae(self._session, model, sae, self._caller)
        statement = select(SAE, Release.slug).outerjoin(Release, Release.id == SAE.release_id)
        row, release = (await self._session.execute(statement.where(SAE.id == place.id))).one()
        versions = await self._versions(place.id)
        current = next((build for build, _ in versions if build.id == row.current_version_id), None)
        return SAEDetail(
            **_fields(row, release),
            description=row.description,
            config=row.config,
            weights=_weights(row),
            job=await self._job(place.id),
            summary=current.summary if current else None,
            settings=current.settings if current else None,
            provenance=shown_provenance(current.provenance, self._caller) if current else None,
            versions=[_version(build, corpus, row.current_version_id) for build, corpus in versions],
        )

    async def _versions(self, sae_id: int) -> list[tuple[SAEVersion, str]]:
        statement = (
            select(SAEVersion, Corpus.slug)
            .join(Corpus, Corpus.id == SAEVersion.corpus_id)
            .where(SAEVersion.sae_id == sae_id, SAEVersion.published_at.is_not(None))
            .order_by(SAEVersion.id.desc())
            .limit(MAX_VERSIONS)
        )
        return [(build, corpus) for build, corpus in await self._session.execute(statement)]

    async def _job(self, sae_id: int) -> JobRef | None:
        job_id = await latest_job(self._session, sae_id)
        if job_id is None:
            return None
        statement = select(Job.id, Job.state, Job.done, Job.total).where(Job.id == job_id)
        row = (await self._session.execute(statement)).one_or_none()
        return None if row is None else JobRef(id=row.id, state=row.state, done=row.done, total=row.total)


def _fields(sae: SAE, release: str | None) -> dict[str, Any]:
    return {
        "model": sae.model_id,
        "sae": sae.slug,
        "title": sae.title,
        "release": release,
        "architecture": sae.architecture,
        "hook": sae.hook,
        "hook_out": sae.hook_out,
        "layer": sae.layer,
        "d_in": sae.d_in,
        "d_out": sae.d_out,
        "n_features": sae.d_sae,
        "state": sae.state,
        "visibility": sae.visibility,
        "created_at": sae.created_at,
        "version": sae.current_version_id,
    }


def _weights(sae: SAE) -> WeightsOut | None:
    if sae.weights_uri is None or sae.weights_sha256 is None:
        return None
    folder = f"/v1/models/{sae.model_id}/saes/{sae.slug}/weights"
    return WeightsOut(
        sha256=sae.weights_sha256,
        size=sae.weights_bytes,
        files=[f"{folder}/{name}" for name in WEIGHTS_FILES],
    )


def _version(build: SAEVersion, corpus: str, current: int | None) -> VersionOut:
    assert build.published_at is not None
    return VersionOut(
        id=build.id,
        current=build.id == current,
        published_at=build.published_at,
        code_version=build.code_version,
        corpus=corpus,
        n_contexts=build.n_contexts,
        n_tokens=build.n_tokens,
        digest=build.digest,
    )
