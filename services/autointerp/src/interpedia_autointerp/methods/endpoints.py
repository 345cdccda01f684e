"""`GET /v1/methods`, `GET /v1/endpoints`, `POST /v1/endpoints/{name}/probe`."""

from __future__ import annotations

from fastapi import APIRouter

from interpedia_autointerp.explainers import EXPLAINERS, How
from interpedia_autointerp.llm import Caller, JobPaused
from interpedia_autointerp.methods.choices import prompt_id
from interpedia_autointerp.scorers import SCORERS, Needs
from interpedia_shared.auth import PublishCaller
from interpedia_shared.contracts.autointerp import EndpointOut, EndpointsOut, MethodOut, MethodsOut
from interpedia_shared.ids import Slug
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import (
    EndpointFailed,
    EndpointNotFound,
    Forbidden,
    Unauthorized,
    Unavailable,
)


def methods_router(caller: Caller) -> APIRouter:
    """What this service can do, and with which LLMs."""
    router = APIRouter(prefix="/v1", tags=["autointerp"])

    @router.get("/methods")
    async def list_methods() -> MethodsOut:
        """Explainers and scorers with their parameters and what they need."""
        return MethodsOut(items=_all_methods())

    @router.get("/endpoints")
    async def list_endpoints() -> EndpointsOut:
        """LLM endpoints of the settings with what probing found; no keys."""
        return EndpointsOut(items=[EndpointOut.model_validate(each) for each in await caller.describe()])

    @router.post(
        "/endpoints/{name}/probe",
        responses=problem_responses(Unauthorized, Forbidden, EndpointNotFound, EndpointFailed, Unavailable),
    )
    async def probe_endpoint(name: Slug, publisher: PublishCaller) -> EndpointOut:
        """Find out anew what an endpoint can do. A few short calls, which no budget counts.

        Within a minute of the last probe the answer is what that one found.
        """
        del publisher
        try:
            await caller.capabilities(name, fresh=True)
        except JobPaused as paused:
            raise Unavailable(f"LLM endpoint '{name}': {paused.detail}") from paused
        found = [each for each in await caller.describe() if each["name"] == name]
        return EndpointOut.model_validate(found[0])

    return router


def _all_methods() -> list[MethodOut]:
    how = How()
    explainers = [
        MethodOut(
            name=each.name,
            kind="explainer",
            version=each.version,
            summary=each.summary,
            needs=list(each.needs(how)),
            prompt=prompt_id(each.prompt),
            params=each.params_model.model_json_schema(),
        )
        for each in EXPLAINERS.values()
    ]
    scorers = [
        MethodOut(
            name=each.name,
            kind="scorer",
            version=each.version,
            summary=each.summary,
            needs=_needs(each.needs(how)),
            prompt=prompt_id(each.prompt),
            params=each.params_model.model_json_schema(),
        )
        for each in SCORERS.values()
    ]
    return [*explainers, *scorers]


def _needs(needs: Needs) -> list[str]:
    others = [name for name in ("embeddings", "steering", "rule") if getattr(needs, name)]
    return [*needs.endpoint, *others]
