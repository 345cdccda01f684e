"""Models, releases and corpora, as one caller sees them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, select

from interpedia_gateway.catalogue.lookup import is_slug, listed_for
from interpedia_gateway.catalogue.schemas import CorpusDetail, CorpusOut, CorpusSource, ModelOut, ReleaseOut
from interpedia_gateway.keysets import Paging
from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.db.models import SAE, Corpus, CorpusDocument, LanguageModel, Release
from interpedia_shared.db.session import ReadSession
from interpedia_shared.problems import CorpusNotFound, ModelNotFound
from interpedia_shared.schemas import Page


def shown_source(source: dict[str, Any], caller: Caller | None) -> dict[str, Any]:
    """A model's source as this caller may see it: only administrators see folders of the server."""
    if source.get("kind") != "local" or (caller is not None and SCOPE_ADMIN in caller.scopes):
        return source
    return {**source, "path": str(source.get("path", "")).rstrip("/").rsplit("/", 1)[-1]}


def shown_provenance(provenance: dict[str, Any], caller: Caller | None) -> dict[str, Any]:
    """A model's provenance, or a build's with a model's inside, as this caller may see it."""
    shown = dict(provenance)
    if isinstance(shown.get("source"), dict):
        shown["source"] = shown_source(shown["source"], caller)
    if isinstance(shown.get("model"), dict):
        shown["model"] = shown_provenance(shown["model"], caller)
    return shown


class Catalogue:
    """Reads of the catalogue by one caller."""

    def __init__(self, session: ReadSession, caller: Caller | None) -> None:
        self._session = session
        self._caller = caller

    def _sae_count(self, condition: ColumnElement[bool]) -> ScalarSelect[int]:
        statement = select(func.count()).select_from(SAE).where(condition, listed_for(self._caller))
        return statement.correlate(LanguageModel, Release).scalar_subquery()

    async def models(self, paging: Paging) -> Page[ModelOut]:
        """All models by id."""
        scope = {"route": "models"}
        statement = self._models().order_by(LanguageModel.id).limit(paging.limit + 1)
        if key := paging.key(scope, (str,)):
            statement = statement.where(LanguageModel.id > key[0])
        rows = (await self._session.execute(statement)).all()
        return paging.page([self._model(*row) for row in rows], scope, lambda model: [model.id])

    async def model(self, model: str) -> ModelOut:
        """One model.

        Raises:
            ModelNotFound: no model has this id.
        """
        statement = self._models().where(LanguageModel.id == model)
        row = (await self._session.execute(statement)).one_or_none() if is_slug(model) else None
        if row is None:
            raise ModelNotFound(model)
        return self._model(*row)

    def _models(self) -> Select[LanguageModel, int]:
        return select(LanguageModel, self._sae_count(SAE.model_id == LanguageModel.id))

    def _model(self, model: LanguageModel, n_saes: int) -> ModelOut:
        return ModelOut(
            id=model.id,
            name=model.name,
            source=shown_source(model.source, self._caller),
            shape=model.shape,
            provenance=shown_provenance(model.provenance, self._caller),
            tokenizer_hash=model.tokenizer_hash,
            bos_token_id=model.bos_token_id,
            licence=model.licence,
            created_at=model.created_at,
            n_saes=n_saes,
        )

    async def releases(self, paging: Paging) -> Page[ReleaseOut]:
        """Releases with at least one SAE that this caller sees in lists."""
        scope = {"route": "releases"}
        count = self._sae_count(SAE.release_id == Release.id)
        statement = select(Release, count).where(count > 0).order_by(Release.slug).limit(paging.limit + 1)
        if key := paging.key(scope, (str,)):
            statement = statement.where(Release.slug > key[0])
        items = [
            ReleaseOut(
                id=release.slug,
                name=release.name,
                description=release.description,
                url=release.url,
                created_at=release.created_at,
                n_saes=n_saes,
            )
            for release, n_saes in (await self._session.execute(statement)).all()
        ]
        return paging.page(items, scope, lambda release: [release.id])

    async def corpora(self, paging: Paging) -> Page[CorpusOut]:
        """All corpora by id."""
        scope = {"route": "corpora"}
        statement = select(Corpus).order_by(Corpus.slug).limit(paging.limit + 1)
        if key := paging.key(scope, (str,)):
            statement = statement.where(Corpus.slug > key[0])
        rows = (await self._session.scalars(statement)).all()
        items = [CorpusOut(**_corpus_fields(row)) for row in rows]
        return paging.page(items, scope, lambda corpus: [corpus.id])

    async def corpus(self, corpus: str) -> CorpusDetail:
        """One corpus with its sources.

        Raises:
            CorpusNotFound: no corpus has this id.
        """
        statement = select(Corpus).where(Corpus.slug == corpus)
        found = await self._session.scalar(statement) if is_slug(corpus) else None
        if found is None:
            raise CorpusNotFound(corpus)
        return CorpusDetail(
            **_corpus_fields(found), provenance=found.provenance, sources=await self._sources(found.id)
        )

    async def _sources(self, corpus_id: int) -> list[CorpusSource]:
        count = func.count().label("n")
        columns = (CorpusDocument.source, CorpusDocument.licence)
        statement = (
            select(*columns, count)
            .where(CorpusDocument.corpus_id == corpus_id)
            .group_by(*columns)
            .order_by(count.desc(), *columns)
            .limit(200)
        )
        return [
            CorpusSource(source=source, licence=licence, n_documents=n)
            for source, licence, n in (await self._session.execute(statement)).all()
        ]


def _corpus_fields(corpus: Corpus) -> dict[str, Any]:
    return {
        "id": corpus.slug,
        "name": corpus.name,
        "state": corpus.state,
        "tokenizer_hash": corpus.tokenizer_hash,
        "context_length": corpus.context_length,
        "prepend_bos": corpus.prepend_bos,
        "n_contexts": corpus.n_contexts,
        "n_tokens": corpus.n_tokens,
        "n_documents": corpus.n_documents,
        "digest": corpus.digest,
        "created_at": corpus.created_at,
        "job": corpus.job_id,
    }
