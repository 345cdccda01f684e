"""Work on explanations: authenticated and documented here, carried out by the autointerp API.

Bodies are checked by the schemas that autointerp uses: a wrong field is refused before anything is sent on.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from interpedia_gateway.autointerp import examples
from interpedia_gateway.autointerp.forward import forwarder
from interpedia_gateway.documentation import Responses, responses
from interpedia_gateway.forwarding import Forwarder
from interpedia_gateway.parameters import OnceKey
from interpedia_shared.auth import optional_caller, publisher
from interpedia_shared.contracts.autointerp import (
    BenchmarkRequest,
    EndpointOut,
    EndpointsOut,
    ExplainRequest,
    MethodsOut,
    RedTeamRequest,
    RunOut,
    ScoreRequest,
    WorkAccepted,
)
from interpedia_shared.problems import (
    EndpointFailed,
    EndpointNotFound,
    ExplanationNotFound,
    FeatureNotFound,
    Forbidden,
    IdempotencyMismatch,
    MissingCapability,
    ModelNotFound,
    NotFound,
    Problem,
    SAENotFound,
    TooLarge,
)

router = APIRouter(prefix="/v1", tags=["explanations"])
ANYBODY = [Depends(optional_caller)]
PUBLISHER = [Depends(publisher)]
TheForwarder = Annotated[Forwarder, Depends(forwarder)]
_FEATURES = (ModelNotFound, SAENotFound, FeatureNotFound)


def _work(*problems: type[Problem]) -> Responses:
    """The answers of an order: 202 with a job, 200 with an estimate."""
    answers = responses(
        WorkAccepted,
        examples.ACCEPTED,
        Forbidden,
        TooLarge,
        IdempotencyMismatch,
        EndpointNotFound,
        MissingCapability,
        EndpointFailed,
        *problems,
        status=202,
    )
    estimate: dict[str, Any] = {
        "description": "A dry run: what it would cost. Nothing was called.",
        "model": WorkAccepted,
        "content": {"application/json": {"example": examples.ESTIMATED}},
    }
    return {**answers, 200: estimate}


@router.post(
    "/explain",
    status_code=202,
    summary="Explain features",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_work(*_FEATURES),
)
async def explain(autointerp: TheForwarder, body: ExplainRequest, once: OnceKey = None) -> Response:
    """Explain features by one method or several, and score what comes out; a job.

    Methods that need an LLM name an endpoint; `GET /v1/methods` lists those that need none. `dry_run` answers
    with an estimate, and a budget is never passed.
    """
    return await autointerp.post("/v1/explain", body, once=once)


@router.post(
    "/score",
    status_code=202,
    summary="Score explanations",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_work(*_FEATURES, ExplanationNotFound),
)
async def score(autointerp: TheForwarder, body: ScoreRequest, once: OnceKey = None) -> Response:
    """Measure how well explanations hold, people's as well as machines'; a job.

    Every score comes with its n, what failed, an interval, the judge and the same score of another feature's
    text.
    """
    return await autointerp.post("/v1/score", body, once=once)


@router.post(
    "/redteam",
    status_code=202,
    summary="Try to refute an explanation",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_work(*_FEATURES, ExplanationNotFound),
)
async def redteam(autointerp: TheForwarder, body: RedTeamRequest, once: OnceKey = None) -> Response:
    """Texts that should fire the feature, and near misses that should not, are run on it; a job.

    The LLM writes them, the caller, or both. The verdict is in the job's result, the texts in the run.
    """
    return await autointerp.post("/v1/redteam", body, once=once)


@router.post(
    "/benchmarks",
    status_code=202,
    summary="Compare explainers",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=_work(*_FEATURES),
)
async def benchmark(autointerp: TheForwarder, body: BenchmarkRequest, once: OnceKey = None) -> Response:
    """Methods on the same frozen material, beside baselines, with paired differences and costs; a job."""
    return await autointerp.post("/v1/benchmarks", body, once=once)


@router.get(
    "/methods",
    summary="List methods",
    dependencies=ANYBODY,
    response_class=Response,
    responses=responses(MethodsOut, examples.METHODS),
)
async def list_methods(autointerp: TheForwarder) -> Response:
    """Explainers and scorers with what they need and the schema of their parameters."""
    return await autointerp.get("/v1/methods")


@router.get(
    "/endpoints",
    summary="List LLM endpoints",
    dependencies=ANYBODY,
    response_class=Response,
    responses=responses(EndpointsOut, examples.ENDPOINTS),
)
async def list_endpoints(autointerp: TheForwarder) -> Response:
    """The LLM endpoints of this server's settings and what probing them found; never their keys."""
    return await autointerp.get("/v1/endpoints")


@router.post(
    "/endpoints/{name}/probe",
    summary="Probe an LLM endpoint",
    dependencies=PUBLISHER,
    response_class=Response,
    responses=responses(EndpointOut, examples.ENDPOINT, Forbidden, EndpointNotFound, EndpointFailed),
)
async def probe_endpoint(
    autointerp: TheForwarder,
    name: Annotated[
        str,
        Path(
            pattern="^[a-z0-9][a-z0-9._-]{0,127}$",
            description="Name of the endpoint.",
            examples=["default"],
        ),
    ],
) -> Response:
    """Find out anew what an endpoint can do: a few short calls."""
    return await autointerp.post(f"/v1/endpoints/{name}/probe")


@router.get(
    "/runs/{run}",
    summary="One run",
    dependencies=ANYBODY,
    response_class=Response,
    responses=responses(RunOut, examples.RUN, NotFound),
)
async def read_run(
    autointerp: TheForwarder, run: Annotated[uuid.UUID, Path(description="Id of the run.")]
) -> Response:
    """One method at work: parameters, provenance, cost, and the texts of a red-team."""
    return await autointerp.get(f"/v1/runs/{run}")
