"""Searches of one caller."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, or_, select, text

from interpedia_gateway.catalogue.lookup import listed_for
from interpedia_gateway.features import rendering
from interpedia_gateway.search.filters import Narrowed, SearchFilter, narrow
from interpedia_gateway.search.schemas import By, FoundExplanation, Match, Mode, SearchHit, SearchOut
from interpedia_gateway.search.statement import FEW, SETTINGS, Asked, estimate_statement, search_statement
from interpedia_gateway.search.tokens import Tokenizers, ids_by_tokenizer
from interpedia_gateway.search.vectors import TextVector, TextVectors
from interpedia_gateway.vocabulary import Vocabularies, Words
from interpedia_shared.auth import Caller
from interpedia_shared.db.models import SAE
from interpedia_shared.db.session import Database, ReadSession
from interpedia_shared.embeddings import EmbeddingUnavailable
from interpedia_shared.ids import FeatureRef

_URL = re.compile(r"/models/([^/]+)/saes/([^/]+)/features/([0-9]+)/?$")
_SETTINGS = text(SETTINGS)
_PLAN_ROWS = re.compile(r"\brows=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Question:
    """What one caller looks for."""

    query: str
    mode: Mode
    limit: int
    wanted: SearchFilter
    caller: Caller | None


class Search:
    """What searching needs, held by the process."""

    def __init__(self, database: Database, vocabularies: Vocabularies, vectors: TextVectors) -> None:
        self._database = database
        self._vocabularies = vocabularies
        self._vectors = vectors
        self._tokenizers = Tokenizers()

    async def find(self, question: Question) -> SearchOut:
        """Features for a query, best first.

        Raises:
            EmbeddingUnavailable: a semantic search without an embedder; a hybrid one does without.
            NotFound, Invalid: a filter names nothing that is there.
        """
        ref = await self._named(question)
        vector, note = (None, None) if ref is not None else await self._vector(question)
        async with self._database.read() as session:
            narrowed = await narrow(session, question.wanted, question.caller)
            asked = await self._asked(session, narrowed, question, vector, ref)
            items = [await self._hit(session, row) for row in await _run(session, asked, narrowed)]
        return SearchOut(
            items=items,
            next_cursor=None,
            query=question.query,
            mode=question.mode,
            embedding_model=None if vector is None else vector.model,
            note=note,
        )

    async def _named(self, question: Question) -> FeatureRef | None:
        """The feature that the query names. Where there is no such SAE it is words, as a date is."""
        ref = None if question.mode == "semantic" else ref_of(question.query)
        if ref is None:
            return None
        async with self._database.read() as session:
            narrowed = await narrow(session, question.wanted, question.caller)
            seen = or_(listed_for(question.caller), SAE.id.in_(narrowed.sae_ids or ()))
            named = select(SAE.id).where(SAE.model_id == ref.model, SAE.slug == ref.sae, seen)
            return None if await session.scalar(named) is None else ref

    async def _vector(self, question: Question) -> tuple[TextVector | None, str | None]:
        if question.mode == "keyword":
            return None, None
        try:
            return await self._vectors.vector(question.query), None
        except EmbeddingUnavailable as error:
            if question.mode == "semantic":
                raise
            return None, f"Found by words and tokens only. {error.detail}"

    async def _asked(
        self,
        session: ReadSession,
        narrowed: Narrowed,
        question: Question,
        vector: TextVector | None,
        ref: FeatureRef | None,
    ) -> Asked:
        if ref is not None or question.mode == "semantic":
            return Asked(question.limit, vector=vector, ref=ref)
        hashes = await self._tokenizers.of(session, narrowed.model)
        ids = await ids_by_tokenizer(session, self._vocabularies, hashes, question.query)
        return Asked(question.limit, question.query, vector, ids)

    async def _hit(self, session: ReadSession, row: Row[Any]) -> SearchHit:
        words = await self._vocabularies.words(session, row.tokenizer_hash)
        return _hit(row, words)


def ref_of(query: str) -> FeatureRef | None:
    """The feature that a query may name: `model/sae/index`, or the address of its page."""
    query = query.strip()
    address = _URL.search(query)
    try:
        return FeatureRef.parse("/".join(address.groups()) if address else query)
    except ValueError:
        return None


async def _run(session: ReadSession, asked: Asked, narrowed: Narrowed) -> list[Row[Any]]:
    if asked.vector is not None or asked.query is not None:
        asked = replace(asked, compares_all=await _passing(session, narrowed) <= FEW)
    await session.execute(_SETTINGS, asked.settings())
    sql, values = search_statement(asked, narrowed)
    return list(await session.execute(text(sql), values))


async def _passing(session: ReadSession, narrowed: Narrowed) -> float:
    """About how many explanations pass the filters: the planner's estimate, which costs no reading."""
    estimate = estimate_statement(narrowed)
    if estimate is None:
        return math.inf
    sql, values = estimate
    plan = await session.scalar(text(sql), values)
    rows = _PLAN_ROWS.search(str(plan))
    return math.inf if rows is None else float(rows.group(1))


def _hit(row: Row[Any], words: Words) -> SearchHit:
    said = None
    if row.id is not None:
        said = FoundExplanation(
            id=row.id,
            text=row.text,
            method=row.method,
            author=row.author,
            is_default=row.is_default,
            best_score=row.best_score,
        )
    return SearchHit(
        ref=str(FeatureRef(row.model_id, row.slug, row.feature_idx)),
        model=row.model_id,
        sae=row.slug,
        index=row.feature_idx,
        score=round(row.score, 6),
        matches=_matches(row.found_by, row.ranks, row.similarity),
        explanation=said,
        density=row.density,
        max_activation=row.max_activation,
        top_logits=rendering.tokens(row.top_logit_ids or [], words),
        peak_tokens=rendering.tokens(row.peak_token_ids or [], words),
    )


def _matches(found_by: list[By], ranks: list[int], similarity: float | None) -> list[Match]:
    return [
        Match(
            by=by,
            rank=rank,
            similarity=round(similarity, 4) if by == "meaning" and similarity is not None else None,
        )
        for by, rank in zip(found_by, ranks, strict=True)
    ]
