"""The one model of this host: waited for, loaded, ready; or failed, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from interpedia_engine.errors import EngineError
from interpedia_engine.models import LanguageModel, ModelSource, load_model
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.repository import read_model_source
from interpedia_shared.db.base import JSON
from interpedia_shared.db.session import Database
from interpedia_shared.problems import HostNotReady, WrongHost

log = structlog.get_logger(__name__)

State = Literal["waiting", "loading", "ready", "failed"]
_POLL_S = 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 5.0, 300.0
_RETRY_AFTER = {"waiting": 5, "loading": 5, "failed": 30}


class ModelHost:
    """Loads the model that the settings name, once it is registered.

    Args:
        database: Where it is registered.
        settings: Which model, how.
        on_ready: Called on the event loop with the loaded model; what it raises counts as a failed load.
    """

    def __init__(
        self,
        database: Database,
        settings: InferenceSettings,
        on_ready: Callable[[LanguageModel], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._on_ready = on_ready
        self._model: LanguageModel | None = None
        self.state: State = "waiting"
        self.detail: str | None = (
            "No model is set (INTERPEDIA_MODEL)."
            if settings.model is None
            else f"Model '{settings.model}' is not registered yet."
        )

    async def run(self) -> None:
        """Wait for the model and load it; returns once it is ready. Never, when there is none to serve."""
        if self._settings.model is None:
            await asyncio.Event().wait()
        retry_s = _FIRST_RETRY_S
        while self._model is None:
            source = await self._source()
            if source is None:
                await asyncio.sleep(_POLL_S)
            elif not await self._load(source):
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    def require(self, model: str) -> LanguageModel:
        """The model, for a request that names one.

        Raises:
            WrongHost: this host serves another.
            HostNotReady: it is not loaded.
        """
        if model != self._settings.model:
            raise WrongHost(model, self._settings.model)
        if self._model is None:
            raise self._not_ready()
        return self._model

    @property
    def max_text_tokens(self) -> int:
        """Most tokens of one text: the setting, or the model's context once that is known to be smaller."""
        limit = self._settings.max_text_tokens
        return limit if self._model is None else min(limit, self._model.max_positions)

    async def check(self) -> str | None:
        """Health check: fine when ready, and while waiting, which the answer says.

        Raises:
            HostNotReady: loading, or failed.
        """
        if self.state in ("loading", "failed"):
            raise self._not_ready()
        return self.detail if self.state == "waiting" else None

    def _not_ready(self) -> HostNotReady:
        return HostNotReady(
            f"Model '{self._settings.model}' is not ready ({self.state}): {self.detail}",
            extensions={"model": self._settings.model, "state": self.state},
            retry_after_s=_RETRY_AFTER.get(self.state),
        )

    async def _source(self) -> JSON | None:
        assert self._settings.model is not None
        try:
            async with self._database.read() as session:
                return await read_model_source(session, self._settings.model)
        except (SQLAlchemyError, OSError) as error:
            log.warning("database_away", error=type(error).__name__)
            return None

    async def _load(self, source: JSON) -> bool:
        self.state, self.detail = "loading", "Its weights are being loaded."
        log.info("model_loading", model=self._settings.model)
        try:
            model = await asyncio.to_thread(self._read, source)
            self._on_ready(model)
        except EngineError as error:
            self._fail(f"{error.field}: {error.detail}")
            return False
        except Exception as error:  # noqa: BLE001 (a host that cannot load says so and stays up)
            self._log_crash(error)
            self._fail(f"{type(error).__name__} while loading; the log has the details.")
            return False
        self._model = model
        self.state, self.detail = "ready", None
        log.info("model_ready", model=self._settings.model)
        return True

    def _log_crash(self, error: Exception) -> None:
        log.error("model_failed", exc_info=error)

    def _fail(self, detail: str) -> None:
        self.state, self.detail = "failed", detail
        log.error("model_not_loaded", model=self._settings.model, detail=detail)

    def _read(self, source: JSON) -> LanguageModel:
        settings = self._settings
        return load_model(
            ModelSource.from_dict(source),
            cache_dir=Path(settings.data_dir).absolute() / "models",
            dtype=settings.model_dtype,
            device=settings.device,
            device_map=settings.device_map,
            threads=settings.torch_threads,
        )
