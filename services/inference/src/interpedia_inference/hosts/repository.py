"""The row of one host."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert

from interpedia_shared.contracts.live.capabilities import Capabilities
from interpedia_shared.db.models import InferenceHost
from interpedia_shared.db.session import WriteSession

FORGOTTEN_AFTER = timedelta(hours=1)


async def write_heartbeat(
    session: WriteSession, host_id: str, *, url: str, model: str, capabilities: Capabilities
) -> None:
    """Enter the host, or renew its entry; by the database's clock. The URL stays as it was first entered."""
    news = {
        "state": capabilities.state,
        "capabilities": capabilities.model_dump(mode="json"),
        "queue_depth": capabilities.queue_depth,
        "heartbeat_at": func.now(),
    }
    statement = insert(InferenceHost).values(id=host_id, url=url, model_id=model, **news)
    await session.execute(statement.on_conflict_do_update(index_elements=[InferenceHost.id], set_=news))


async def forget_host(session: WriteSession, host_id: str) -> None:
    """Remove the host that stops, and those that were not heard of for long."""
    await session.execute(
        delete(InferenceHost).where(
            (InferenceHost.id == host_id) | (InferenceHost.heartbeat_at < func.now() - FORGOTTEN_AFTER)
        )
    )
