"""Explanations as one caller reads and writes them."""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import delete, update

from interpedia_gateway.catalogue.lookup import SAEPlace, find_sae
from interpedia_gateway.explanations import repository
from interpedia_gateway.explanations.rendering import explanation_detail, explanation_out
from interpedia_gateway.explanations.repository import ExplanationRow
from interpedia_gateway.explanations.schemas import (
    MAX_VERDICTS,
    ExplanationDetail,
    ExplanationEdit,
    ExplanationOut,
    ExplanationRequest,
)
from interpedia_gateway.keysets import Paging
from interpedia_gateway.search.vectors import TextVector, TextVectors
from interpedia_shared.auth import SCOPE_ADMIN, Caller
from interpedia_shared.db.models import Explanation
from interpedia_shared.db.session import Database, ReadSession, WriteSession
from interpedia_shared.embeddings import EmbeddingUnavailable
from interpedia_shared.explanations import (
    HUMAN,
    NewExplanation,
    add_explanations,
    choose_default,
    lock_defaults,
)
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.problems import Conflict, ExplanationNotFound, Forbidden
from interpedia_shared.schemas import Page

log = structlog.get_logger(__name__)
_OF_ANY_TEXT = ("role", "parent")


class Explanations:
    """Reads for anybody who may see the SAE; changes for the author."""

    def __init__(self, database: Database, vectors: TextVectors) -> None:
        self._database = database
        self._vectors = vectors

    async def list(
        self, path: tuple[str, str, int], caller: Caller | None, paging: Paging
    ) -> tuple[Page[ExplanationOut], SAEPlace]:
        """Explanations of the feature `(model, sae, index)`, the default first."""
        async with self._database.read() as session:
            place = await self._place(session, path, caller)
            scope = {"route": "explanations", "sae": place.id, "index": path[2]}
            after = paging.key(scope, (int, str))
            rows = await repository.of_feature(
                session, place.id, path[2], after=_key(after), limit=paging.limit + 1
            )
            scores = await repository.scores(session, [row.id for row in rows], headline_only=True)
        keys = {row.id: [int(row.is_default), str(row.id)] for row in rows}
        items = [explanation_out(row, scores[row.id]) for row in rows]
        return paging.page(items, scope, lambda item: keys[item.id]), place

    async def detail(self, explanation: int, caller: Caller | None) -> tuple[ExplanationDetail, bool]:
        """One explanation with scores and verdicts, and whether its SAE is private.

        Raises:
            ExplanationNotFound: none has this id, or its SAE is none of this caller's business.
        """
        async with self._database.read() as session:
            row = await _found(session, explanation, caller)
            scores = await repository.scores(session, [row.id], headline_only=False)
            verdicts, count = await repository.verdicts(session, row.id, MAX_VERDICTS)
        return explanation_detail(row, scores[row.id], verdicts, count), row.visibility == "private"

    async def add(
        self, path: tuple[str, str, int], caller: Caller, body: ExplanationRequest, claim: Once
    ) -> Answer:
        """Write a person's explanation.

        Raises:
            ModelNotFound, SAENotFound, FeatureNotFound: there is no such feature.
            Conflict: the account has said these very words about it already.
        """
        earlier = await claim.replay(self._database)
        if earlier is not None:
            return earlier
        vector = await self._vector(body.text)
        async with self._database.write() as session:
            earlier = await claim.claim(session)
            if earlier is not None:
                return earlier
            place = await self._place(session, path, caller)
            index = path[2]
            await _check_new(session, place.id, index, caller, body.text)
            row = NewExplanation(
                index,
                body.text,
                HUMAN,
                caller.account_id,
                hypothesis={} if body.role is None else {"role": body.role},
                embedding=None if vector is None else vector.values,
                embedding_model=None if vector is None else vector.model,
            )
            (number,) = await add_explanations(session, place.id, [row])
            written = explanation_out(await _found(session, number, caller), [])
            return await claim.keep(session, Answer.of(201, written))

    async def edit(self, explanation: int, caller: Caller, body: ExplanationEdit) -> ExplanationOut:
        """Change one's own explanation; a text that was judged stays as it is, since the scores are its own.

        Raises:
            ExplanationNotFound: none has this id.
            Forbidden: it is somebody else's.
            Conflict: its text was scored, or the account has another one with the new text.
        """
        vector = None if body.text is None else await self._vector(body.text)
        async with self._database.write() as session:
            row = await _own(session, explanation, caller)
            changes: dict[str, Any] = {}
            hypothesis = row.hypothesis
            if body.text is not None and body.text != row.text:
                await _check_unjudged(session, explanation)
                await _check_new(session, row.sae_id, row.feature_idx, caller, body.text)
                changes["text"] = body.text
                changes["embedding"] = None if vector is None else vector.values.tolist()
                changes["embedding_model"] = None if vector is None else vector.model
                # a rule of the old text must not be scored for the new one
                hypothesis = {name: hypothesis[name] for name in _OF_ANY_TEXT if name in hypothesis}
            if body.role is not None:
                hypothesis = {**hypothesis, "role": body.role}
            if hypothesis != row.hypothesis:
                changes["hypothesis"] = hypothesis
            if changes:
                await session.execute(
                    update(Explanation).where(Explanation.id == explanation).values(**changes)
                )
            scores = await repository.scores(session, [explanation], headline_only=True)
            return explanation_out(await _found(session, explanation, caller), scores[explanation])

    async def remove(self, explanation: int, caller: Caller) -> None:
        """Delete one's own explanation with its scores; another one becomes the feature's default.

        Raises:
            ExplanationNotFound: none has this id.
            Forbidden: it is somebody else's.
        """
        async with self._database.write() as session:
            await lock_defaults(session, (await _found(session, explanation, caller)).sae_id)
            row = await _own(session, explanation, caller)
            await session.execute(delete(Explanation).where(Explanation.id == explanation))
            await choose_default(session, row.sae_id, [row.feature_idx])

    async def _place(
        self, session: ReadSession | WriteSession, path: tuple[str, str, int], caller: Caller | None
    ) -> SAEPlace:
        model, sae, index = path
        place = await find_sae(ReadSession(session), model, sae, caller)
        place.check_index(index)
        return place

    async def _vector(self, text: str) -> TextVector | None:
        """The text's vector; without an embedder it gets one later."""
        try:
            return await self._vectors.vector(text)
        except EmbeddingUnavailable as error:
            log.info("explanation_without_vector", reason=error.detail)
            return None


def _key(key: list[Any] | None) -> tuple[int, int] | None:
    if key is None:
        return None
    number: str = key[1]
    return int(key[0]), int(number) if number.isascii() and number.isdigit() and len(number) <= 18 else 0


async def _found(
    session: ReadSession | WriteSession, explanation: int, caller: Caller | None
) -> ExplanationRow:
    row = await repository.one(session, explanation, caller)
    if row is None:
        raise ExplanationNotFound(explanation)
    return row


async def _own(session: WriteSession, explanation: int, caller: Caller) -> ExplanationRow:
    row = await repository.one(session, explanation, caller, lock=True)
    if row is None:
        raise ExplanationNotFound(explanation)
    if row.account_id != caller.account_id and SCOPE_ADMIN not in caller.scopes:
        raise Forbidden(
            f"Explanation {explanation} is {row.author}'s.", extensions={"explanation": explanation}
        )
    return row


async def _check_new(session: WriteSession, sae_id: int, index: int, caller: Caller, text: str) -> None:
    same = await repository.same_text(session, sae_id, index, account_id=caller.account_id, text=text)
    if same is not None:
        raise Conflict(
            f"This account has explained the feature with these words already: explanation {same}.",
            extensions={"explanation": same},
        )


async def _check_unjudged(session: WriteSession, explanation: int) -> None:
    if await repository.is_judged(session, explanation):
        raise Conflict(
            f"Explanation {explanation} was scored: its text stays as it is. Add another one.",
            extensions={"explanation": explanation},
        )
