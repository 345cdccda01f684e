"""What runs beside the routes while the service is up, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from interpedia_inference.hosts.heartbeat import Heartbeat
from interpedia_inference.visits.reception import Reception
from interpedia_shared.jobs import Handler, Worker
from interpedia_shared.problems import Unavailable
from interpedia_shared.settings import DatabaseSettings

log = structlog.get_logger(__name__)

RESTART_S = 10.0


def queue_name(model: str) -> str:
    """The queue of the jobs that need a model."""
    return f"inference-{model}"


class Lifetime:
    """Registry, model and job worker.

    Args:
        reception: Whose host is loaded, and closed at the end.
        heartbeat: Tells the registry.
        handlers: Jobs that are taken once the model is ready; none: no worker runs.
        database_settings: Of the worker's own pool.
    """

    def __init__(
        self,
        reception: Reception,
        heartbeat: Heartbeat,
        *,
        handlers: Mapping[str, Handler],
        database_settings: DatabaseSettings,
    ) -> None:
        self._reception = reception
        self._heartbeat = heartbeat
        self._handlers = handlers
        self._database_settings = database_settings
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Load the model, keep the registry fresh, take jobs; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeat.run())
            group.create_task(self._serve())

    async def end(self) -> None:
        """Leave the registry, refuse who still comes, end who is in, stop computing."""
        self._stop.set()
        await self._heartbeat.leave()
        self._reception.admission.close(Unavailable("This host is shutting down.", retry_after_s=2))
        await self._reception.compute.stop()

    async def _serve(self) -> None:
        """Load the model, then take jobs. A worker that fails is begun anew."""
        await self._reception.host.run()
        model = self._reception.settings.model
        while self._handlers and model is not None and not self._stop.is_set():
            worker = Worker(self._database_settings, self._handlers, queue=queue_name(model))
            try:
                await worker.run(self._stop)
            except Exception as error:  # noqa: BLE001 (the registry is kept fresh whatever the worker does)
                self._log_crash(error)
                await asyncio.sleep(RESTART_S)

    def _log_crash(self, error: Exception) -> None:
        log.error("worker_failed", retry_after_s=RESTART_S, exc_info=error)
