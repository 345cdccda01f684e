"""The task that loads a model, checks it and writes its rows. Runs in a worker."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from interpedia_engine.errors import EngineError
from interpedia_engine.models import LanguageModel, ModelSource, self_check
from interpedia_ingest.models import repository
from interpedia_ingest.models.sources import allowed_source, shown_source
from interpedia_ingest.refusals import refuse_engine
from interpedia_ingest.shelf import Shelf
from interpedia_shared.db.base import JSON
from interpedia_shared.jobs.context import TaskContext
from interpedia_shared.jobs.errors import TaskFailed
from interpedia_shared.problems import BadModel, Conflict, Problem
from interpedia_shared.tokens import Vocabulary

_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")


class RegisterModel:
    """Handler of `register_model`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def __call__(self, context: TaskContext) -> JSON:
        """Load, check, insert. Again changes nothing.

        Raises:
            TaskFailed: the source gives no model that runs here, or the id is taken.
        """
        params = context.params
        try:
            source = allowed_source(params["source"], self._shelf.settings.model_dirs)
            model = await self._shelf.model(source)
            await asyncio.to_thread(self_check, model)
        except EngineError as error:
            raise TaskFailed.from_problem(refuse_engine(BadModel, "#/source", error)) from error
        except Problem as problem:
            raise TaskFailed.from_problem(problem) from problem
        context.check()
        packed = await asyncio.to_thread(Vocabulary(model.vocabulary.entries).pack)
        async with context.database.write() as session:
            other = await repository.insert_model(
                session,
                packed,
                len(model.vocabulary),
                id=params["model"],
                name=params["name"],
                licence=params["licence"],
                **_columns(model, source),
            )
        if other is not None and other != source.to_dict():
            raise TaskFailed.from_problem(
                Conflict(f"Model '{params['model']}' was registered from another source meanwhile.")
            )
        return {"model": params["model"], "shape": asdict(model.shape)}


def _columns(model: LanguageModel, source: ModelSource) -> dict[str, Any]:
    return {
        "source": source.to_dict(),
        "shape": asdict(model.shape),
        "provenance": {
            **model.provenance,
            "source": shown_source(source),
            "max_positions": model.max_positions,
            "norm_epsilon": _norm_epsilon(model),
        },
        "tokenizer_hash": model.provenance["tokenizer_hash"],
        "bos_token_id": model.bos_id,
    }


def _norm_epsilon(model: LanguageModel) -> float | None:
    config: Any = model.hf.config
    return next((float(getattr(config, name)) for name in _EPSILONS if hasattr(config, name)), None)
