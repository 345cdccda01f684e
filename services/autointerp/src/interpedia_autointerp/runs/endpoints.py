"""`GET /v1/runs/{id}`."""

from __future__ import annotations

import uuid

from fastapi import APIRouter

from interpedia_autointerp.runs import repository
from interpedia_shared.auth import AnyCaller
from interpedia_shared.contracts.autointerp import RunOut, Spent, TriedText
from interpedia_shared.db.models import RedTeamText
from interpedia_shared.db.session import Database
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import NotFound, Unauthorized


def runs_router(database: Database) -> APIRouter:
    """The route that shows a run."""
    router = APIRouter(prefix="/v1/runs", tags=["autointerp"])

    @router.get("/{run}", responses=problem_responses(Unauthorized, NotFound))
    async def read_run(run: uuid.UUID, caller: AnyCaller) -> RunOut:
        """Method, versions, seeds, prompt hashes, endpoint; what it made and what it cost."""
        async with database.read() as session:
            row = await repository.find(session, run, caller)
            if row is None:
                raise NotFound(f"No run '{run}' here.", extensions={"run": str(run)})
            n_explanations, n_scores = await repository.counts(session, run)
            spent = await repository.spent(session, run)
            texts = await repository.texts(session, run) if row.kind == "redteam" else []
        return RunOut(
            id=row.id,
            kind=row.kind,  # pyright: ignore[reportArgumentType]
            method=row.method,
            method_version=row.method_version,
            params=row.params,
            provenance=row.provenance,
            job=row.job_id,
            created_at=row.created_at,
            explanations=n_explanations,
            scores=n_scores,
            spent=Spent(**spent),
            texts=[_text(each) for each in texts],
        )

    return router


def _text(row: RedTeamText) -> TriedText:
    values = row.activations
    return TriedText(
        id=row.id,
        round=row.round,
        explanation=row.explanation_id,
        intent=row.intent,  # pyright: ignore[reportArgumentType]
        author=row.author,
        pair=row.pair,
        text=row.text,
        state=row.state,
        tokens=row.tokens,
        activations=None if values is None else values["values"],
        max_activation=row.max_activation,
        quantile=row.quantile,
    )
