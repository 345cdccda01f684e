"""From the ids of a path to rows, with visibility and readiness checked. Every route goes through here."""

from __future__ import annotations

import re
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from interpedia_shared.auth import Caller
from interpedia_shared.db.models import SAE, Corpus, LanguageModel, Release, SAEVersion
from interpedia_shared.db.session import ReadSession
from interpedia_shared.ids import SLUG_PATTERN
from interpedia_shared.problems import (
    FeatureNotFound,
    ModelNotFound,
    ReleaseNotFound,
    SAENotFound,
    VersionNotFound,
)

MAX_ID = 2**63 - 1
_SLUG = re.compile(SLUG_PATTERN)
_VERSIONS_KEPT = 512


@dataclass(frozen=True, slots=True)
class SAEPlace:
    """An SAE the caller may see: the few columns that every feature route needs."""

    id: int
    model: str
    sae: str
    account_id: int
    visibility: str
    state: str
    architecture: str
    d_in: int
    d_out: int
    d_sae: int
    weights_uri: str | None
    weights_sha256: str | None
    current_version_id: int | None

    @property
    def is_private(self) -> bool:
        """Whether only its owner may see it."""
        return self.visibility == "private"

    def check_index(self, index: int) -> None:
        """Refuse an index that is no feature.

        Raises:
            FeatureNotFound: outside 0..d_sae - 1; negative ones are not counted from the end.
        """
        if not 0 <= index < self.d_sae:
            raise FeatureNotFound(self.model, self.sae, index, self.d_sae)


@dataclass(frozen=True, slots=True)
class CorpusPlace:
    """What is needed to read contexts of a corpus."""

    id: int
    slug: str
    token_width: int
    context_length: int
    prepend_bos: bool
    tokenizer_hash: str
    digest: str


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """One published build with all that never changes about it."""

    id: int
    sae_id: int
    published_at: datetime
    code_version: str
    digest: str | None
    n_contexts: int
    n_tokens: int | None
    settings: dict[str, Any]
    provenance: dict[str, Any]
    summary: dict[str, Any] | None
    corpus: CorpusPlace
    model_source: dict[str, Any]
    model_provenance: dict[str, Any]
    hook: str
    hook_out: str | None
    sae_config: dict[str, Any]


PLACE_COLUMNS = (  # in the order of SAEPlace
    SAE.id,
    SAE.model_id,
    SAE.slug,
    SAE.account_id,
    SAE.visibility,
    SAE.state,
    SAE.architecture,
    SAE.d_in,
    SAE.d_out,
    SAE.d_sae,
    SAE.weights_uri,
    SAE.weights_sha256,
    SAE.current_version_id,
)
_VERSION = (
    SAEVersion.id,
    SAEVersion.sae_id,
    SAEVersion.published_at,
    SAEVersion.code_version,
    SAEVersion.digest,
    SAEVersion.n_contexts,
    SAEVersion.n_tokens,
    SAEVersion.settings,
    SAEVersion.provenance,
    SAEVersion.summary,
    Corpus.id.label("corpus_id"),
    Corpus.slug,
    Corpus.token_width,
    Corpus.context_length,
    Corpus.prepend_bos,
    Corpus.tokenizer_hash,
    Corpus.digest.label("corpus_digest"),
    LanguageModel.source,
    LanguageModel.provenance.label("model_provenance"),
    SAE.hook,
    SAE.hook_out,
    SAE.config,
)


def is_slug(text: str) -> bool:
    """Whether this could be an id at all; anything else is not worth a query."""
    return _SLUG.match(text) is not None


def listed_for(caller: Caller | None) -> ColumnElement[bool]:
    """SAEs that lists show: public ones, and the caller's own."""
    public = SAE.visibility == "public"
    return public if caller is None else or_(public, SAE.account_id == caller.account_id)


def readable_by(caller: Caller | None) -> ColumnElement[bool]:
    """SAEs that a direct path reaches: unlisted ones as well, private ones only for their owner."""
    shared = SAE.visibility.in_(("public", "unlisted"))
    return shared if caller is None else or_(shared, SAE.account_id == caller.account_id)


async def check_model(session: ReadSession, model: str) -> None:
    """Refuse a model that is not here.

    Raises:
        ModelNotFound: no model has this id.
    """
    known = is_slug(model) and await session.scalar(select(LanguageModel.id).where(LanguageModel.id == model))
    if not known:
        raise ModelNotFound(model)


async def find_release(session: ReadSession, release: str) -> int:
    """The key of a release.

    Raises:
        ReleaseNotFound: no release has this id.
    """
    found = (
        await session.scalar(select(Release.id).where(Release.slug == release)) if is_slug(release) else None
    )
    if found is None:
        raise ReleaseNotFound(
            f"No release '{release}' here. GET /v1/releases lists them.", extensions={"release": release}
        )
    return found


async def find_sae(session: ReadSession, model: str, sae: str, caller: Caller | None) -> SAEPlace:
    """An SAE by its path.

    Raises:
        ModelNotFound: no such model.
        SAENotFound: no such SAE, or a private one of somebody else, which is not told apart.
    """
    if is_slug(model) and is_slug(sae):
        statement = select(*PLACE_COLUMNS).where(SAE.model_id == model, SAE.slug == sae, readable_by(caller))
        row = (await session.execute(statement)).one_or_none()
        if row is not None:
            values: list[Any] = list(row)
            return SAEPlace(*values)
    await check_model(session, model)
    raise SAENotFound(model, sae)


class Versions:
    """Published builds, kept in memory: a build never changes once it is published."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, VersionPlace] = OrderedDict()

    async def find(self, session: ReadSession, place: SAEPlace, version: int | None) -> VersionPlace:
        """The build asked for, or the current one.

        Raises:
            VersionNotFound: nothing is published yet (names state and job), or not this version.
        """
        wanted = version if version is not None else place.current_version_id
        if wanted is None:
            raise await _not_built(session, place)
        found = self._kept.get(wanted)
        if found is None:
            found = await _load_version(session, wanted)
        if found is None or found.sae_id != place.id:
            raise VersionNotFound(
                f"{place.model}/{place.sae} has no published version {wanted}.",
                extensions={"model": place.model, "sae": place.sae, "version": wanted},
            )
        self._kept[wanted] = found
        self._kept.move_to_end(wanted)
        if len(self._kept) > _VERSIONS_KEPT:
            self._kept.popitem(last=False)
        return found


async def _load_version(session: ReadSession, version: int) -> VersionPlace | None:
    statement = (
        select(*_VERSION)
        .join(Corpus, Corpus.id == SAEVersion.corpus_id)
        .join(SAE, SAE.id == SAEVersion.sae_id)
        .join(LanguageModel, LanguageModel.id == SAE.model_id)
        .where(SAEVersion.id == version, SAEVersion.published_at.is_not(None))
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    values: list[Any] = list(row)
    members: list[Any] = [*values[:10], CorpusPlace(*values[10:17]), *values[17:]]
    return VersionPlace(*members)


async def latest_job(session: ReadSession, sae_id: int) -> uuid.UUID | None:
    """The job of the SAE's newest build, finished or not."""
    return await session.scalar(
        select(SAEVersion.job_id)
        .where(SAEVersion.sae_id == sae_id, SAEVersion.job_id.is_not(None))
        .order_by(SAEVersion.id.desc())
        .limit(1)
    )


async def _not_built(session: ReadSession, place: SAEPlace) -> VersionNotFound:
    job = await latest_job(session, place.id)
    where = f" Its job is /v1/jobs/{job}." if job else ""
    return VersionNotFound(
        f"{place.model}/{place.sae} has no dashboards yet: it is '{place.state}'.{where}",
        extensions={
            "model": place.model,
            "sae": place.sae,
            "state": place.state,
            "job": str(job) if job else None,
        },
    )
