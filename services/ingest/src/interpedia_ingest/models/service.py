"""The rules of registering models."""

from __future__ import annotations

import asyncio
from pathlib import Path

from interpedia_engine.models import ModelSource
from interpedia_ingest.models import repository
from interpedia_ingest.models.sources import allowed_source, shown_source
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.publishing import ModelAccepted, ModelRequest
from interpedia_shared.db.models import Job
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs.plan import TaskSpec
from interpedia_shared.jobs.service import create_job, job_out
from interpedia_shared.problems import Conflict

KIND = "register_model"


class ModelService:
    """Takes orders for models; a worker loads them."""

    def __init__(self, database: Database, model_dirs: tuple[Path, ...]) -> None:
        self._database = database
        self._model_dirs = model_dirs

    async def register(self, caller: Caller, request: ModelRequest, once: Once) -> Answer:
        """Start the registration of a model: 202; or 200 when it is here from the same source.

        Raises:
            BadModel: the source is refused.
            Conflict: the id belongs to a model from another source.
        """
        kept = await once.replay(self._database)
        if kept is not None:
            return kept
        fields = request.source.model_dump(exclude_none=True)
        source = await asyncio.to_thread(allowed_source, fields, self._model_dirs)
        async with self._database.write() as session:
            kept = await once.claim(session)
            if kept is not None:
                return kept
            await repository.lock_name(session, "model", request.id)
            status, job = await self._find_or_start(session, caller, request, source)
            shown = None if job is None else await job_out(session, job)
            return await once.keep(session, Answer.of(status, ModelAccepted(model=request.id, job=shown)))

    async def _find_or_start(
        self, session: WriteSession, caller: Caller, request: ModelRequest, source: ModelSource
    ) -> tuple[int, Job | None]:
        model = await repository.find(session, request.id)
        job = await repository.last_job(session, request.id)
        if model is not None:
            if model.source != source.to_dict():
                raise _taken(request.id)
            return 200, job
        if job is not None and job.state in {"queued", "running"}:
            if job.params["source"] != shown_source(source):
                raise _taken(request.id)
            return 202, job
        return 202, await create_job(
            session,
            kind=KIND,
            account_id=caller.account_id,
            params={"model": request.id, "name": request.name, "source": shown_source(source)},
            stages=["register"],
            tasks=[
                TaskSpec(
                    kind=KIND,
                    stage=0,
                    ordinal=0,
                    params={
                        "model": request.id,
                        "name": request.name,
                        "source": source.to_dict(),
                        "licence": request.licence,
                    },
                )
            ],
        )


def _taken(model: str) -> Conflict:
    return Conflict(
        f"Model '{model}' is registered from another source. Features keep their model: take another id.",
        extensions={"model": model},
    )
