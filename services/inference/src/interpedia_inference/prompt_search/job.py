"""The task of a prompt search, run by the host that has the model. Its result is the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from interpedia_engine.effects import Progress
from interpedia_engine.templates import SearchPlan, search_template
from interpedia_inference.effects import dictionary_of
from interpedia_inference.prompt_search.service import read_template, write_prompts
from interpedia_inference.visits.reception import Reception
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.effects import PromptSearchRequest
from interpedia_shared.db.base import JSON
from interpedia_shared.jobs import TaskContext
from interpedia_shared.problems import ClientGone, Problem

_LOOK_EVERY_S = 0.2
_NUL, _SHOWN_NUL = "\x00", "\u2400"


class PromptSearch:
    """Handler of `prompt_search`; the job's params are the request."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def __call__(self, context: TaskContext) -> JSON:
        """Search, between the steps of live requests.

        Raises:
            Problem: the template, an SAE or a control is refused, or the host cannot do it now.
            TaskCancelled: the job is not wanted any more.
        """
        body = PromptSearchRequest.model_validate(context.job_params)
        template = await read_template(body)
        plan = SearchPlan(
            n=body.n,
            seed=body.seed,
            method=body.method,
            k=body.k,
            controls=None if body.controls is None else tuple(body.controls),
        )

        def report(progress: Progress) -> None:
            share = progress.done / max(1, progress.total)
            context.report(min(context.weight, int(share * context.weight)))

        async with (
            self._reception.background(body.model, route="prompt_search") as visit,
            _ended_with(context, visit),
        ):
            held = await visit.borrow(body.saes_named())
            saes = list(held.values())
            dictionaries = [dictionary_of(sae) for sae in saes]
            rendered = await write_prompts(visit, body, template, saes)
            result = await visit.call(
                lambda: search_template(visit.model, dictionaries, template, plan, rendered=rendered),
                progress=report,
            )
            provenance = visit.provenance(bos=visit.model.bos_id is not None, saes=saes)
        found: JSON = storable({**result, "provenance": provenance.model_dump(mode="json")})
        return found


@asynccontextmanager
async def _ended_with(context: TaskContext, visit: Visit) -> AsyncGenerator[None]:
    """End the visit's work, within a step, once the job is not wanted any more.

    Raises:
        TaskCancelled: it is not.
    """

    async def watch() -> None:
        while context.interruption is None:  # noqa: ASYNC110 - the worker sets a flag, no event
            await asyncio.sleep(_LOOK_EVERY_S)
        visit.ticket.end(ClientGone())

    watcher = asyncio.create_task(watch())
    try:
        yield
    except Problem:
        context.check()
        raise
    finally:
        watcher.cancel()


def storable(value: Any) -> Any:
    """A copy without NUL characters, which Postgres cannot hold: they are shown as ␀."""
    if isinstance(value, str):
        return value.replace(_NUL, _SHOWN_NUL)
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value
