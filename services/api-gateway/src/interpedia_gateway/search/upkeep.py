"""The job that embeds explanations, cut into ranges of ids so that workers can share it."""

from __future__ import annotations

from sqlalchemy import func, select

from interpedia_gateway.search.schemas import EmbeddingAccepted
from interpedia_shared.auth import Caller
from interpedia_shared.db.models import Explanation
from interpedia_shared.db.session import Database
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs import TaskSpec, create_job, job_out
from interpedia_shared.schemas import Request

KIND = "embed"
QUEUE = "autointerp"
RANGE = 4096
"""Ids of one task: a minute of one core with the bundled model."""


class _Nothing(Request):
    """The body of a POST that has none."""


async def embed_again(database: Database, caller: Caller, once: str | None) -> Answer:
    """Start the job."""
    claim = Once(caller, "POST /v1/search/embeddings", once, _Nothing())
    earlier = await claim.replay(database)
    if earlier is not None:
        return earlier
    async with database.write() as session:
        earlier = await claim.claim(session)
        if earlier is not None:
            return earlier
        row = (await session.execute(select(func.min(Explanation.id), func.max(Explanation.id)))).one()
        first, last = row[0] or 0, row[1] or 0
        tasks = [
            TaskSpec(KIND, 0, number, {"first": start, "last": start + RANGE - 1}, weight=RANGE, queue=QUEUE)
            for number, start in enumerate(range(first, last + 1, RANGE))
        ]
        job = await create_job(
            session, kind=KIND, account_id=caller.account_id, params={}, stages=("embed",), tasks=tasks
        )
        return await claim.keep(session, Answer.of(202, EmbeddingAccepted(job=await job_out(session, job))))
