"""The API's description: nothing undocumented, and examples that are true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from httpx import AsyncClient
from pydantic import BaseModel, TypeAdapter

from interpedia_gateway import examples
from interpedia_gateway.autointerp import examples as autointerp_examples
from interpedia_gateway.catalogue.schemas import (
    CorpusDetail,
    CorpusOut,
    ModelOut,
    ReleaseOut,
    SAEDetail,
    SAEOut,
)
from interpedia_gateway.explanations import examples as explanation_examples
from interpedia_gateway.explanations.schemas import ExplanationDetail, ExplanationOut
from interpedia_gateway.features.schemas import (
    BatchOut,
    Dashboard,
    FeatureSummary,
    NeighboursOut,
    VectorOut,
)
from interpedia_gateway.live import examples as live_examples
from interpedia_gateway.live.schemas import SearchAccepted, ServedModel, SharedSteering
from interpedia_gateway.search import examples as search_examples
from interpedia_gateway.search.schemas import EmbeddingAccepted, SearchOut
from interpedia_shared.contracts.autointerp import (
    EndpointOut,
    EndpointsOut,
    MethodsOut,
    RunOut,
    WorkAccepted,
)
from interpedia_shared.contracts.live.activations import ActivationsOut, LensOut, TopOut
from interpedia_shared.contracts.live.effects import AblateOut, AttributeOut, PromptTemplate
from interpedia_shared.contracts.live.requests import TokenizeOut
from interpedia_shared.contracts.live.steering import SteerOut
from interpedia_shared.contracts.publishing import CorpusAccepted, ModelAccepted, SAEsAccepted, UploadOut
from interpedia_shared.jobs import JobOut
from interpedia_shared.schemas import Page

METHODS = {"get", "post", "put", "delete", "patch"}
WITHOUT_PROBLEMS = {"/livez", "/readyz", "/metrics"}


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """All routes under /v1."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if method in METHODS and path not in WITHOUT_PROBLEMS:
                yield method, path, operation


@pytest.fixture
async def schema(client: AsyncClient) -> dict[str, Any]:
    """The description as served."""
    return (await client.get("/openapi.json")).json()


async def test_every_route_has_summary_description_and_example(schema: dict[str, Any]) -> None:
    routes = list(operations(schema))
    assert len(routes) >= 52
    for method, path, operation in routes:
        where = f"{method} {path}"
        assert operation.get("summary"), where
        assert operation.get("description"), where
        good = [entry for status, entry in operation["responses"].items() if status.startswith("2")]
        assert good, where
        if "204" not in operation["responses"]:
            contents = [content for entry in good for content in entry.get("content", {}).values()]
            assert any("example" in content for content in contents), where
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{where}: {parameter['name']}"
        for content in operation.get("requestBody", {}).get("content", {}).values():
            body = content["schema"]
            if "$ref" in body:
                body = schema["components"]["schemas"][body["$ref"].rsplit("/", 1)[-1]]
            has_example = (
                "example" in content
                or "examples" in body
                or any("examples" in field for field in body.get("properties", {}).values())
            )
            assert has_example, where


async def test_every_route_names_its_problems(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        problems = {
            status: entry
            for status, entry in operation["responses"].items()
            if "application/problem+json" in entry.get("content", {})
        }
        assert {"401", "422", "503"} <= set(problems), f"{method} {path}"
        assert all("(`" in entry["description"] for entry in problems.values()), f"{method} {path}"
        if "{model}" in path or "{job}" in path or "{corpus}" in path or "{upload}" in path:
            assert "404" in problems, f"{method} {path}"


async def test_all_references_resolve(schema: dict[str, Any]) -> None:
    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    for reference in walk(schema):
        found: Any = schema
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


SHAPES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ModelOut, examples.MODEL_OUT),
    (ReleaseOut, examples.RELEASE_OUT),
    (SAEOut, examples.SAE_OUT),
    (SAEDetail, examples.SAE_DETAIL),
    (CorpusOut, examples.CORPUS_OUT),
    (CorpusDetail, examples.CORPUS_DETAIL),
    (Page[FeatureSummary], examples.page(examples.FEATURE_SUMMARY)),
    (Dashboard, examples.DASHBOARD),
    (VectorOut, examples.VECTOR),
    (NeighboursOut, examples.NEIGHBOURS),
    (BatchOut, examples.BATCH),
    (JobOut, examples.JOB),
    (UploadOut, examples.UPLOAD),
    (SAEsAccepted, examples.SAES_ACCEPTED),
    (ModelAccepted, examples.MODEL_ACCEPTED),
    (CorpusAccepted, examples.CORPUS_ACCEPTED),
    (ServedModel, live_examples.SERVED),
    (TokenizeOut, live_examples.TOKENIZE),
    (ActivationsOut, live_examples.ACTIVATIONS),
    (TopOut, live_examples.TOP),
    (SteerOut, live_examples.STEER),
    (SharedSteering, live_examples.SHARED),
    (AblateOut, live_examples.ABLATE),
    (AttributeOut, live_examples.ATTRIBUTE),
    (LensOut, live_examples.LENS),
    (PromptTemplate, live_examples.TEMPLATE),
    (SearchAccepted, {"job": live_examples.SEARCH_JOB}),
    (ExplanationOut, explanation_examples.EXPLANATION),
    (ExplanationDetail, explanation_examples.DETAIL),
    (SearchOut, search_examples.FOUND),
    (EmbeddingAccepted, {"job": search_examples.EMBEDDING_JOB}),
    (WorkAccepted, autointerp_examples.ACCEPTED),
    (WorkAccepted, autointerp_examples.ESTIMATED),
    (MethodsOut, autointerp_examples.METHODS),
    (EndpointOut, autointerp_examples.ENDPOINT),
    (EndpointsOut, autointerp_examples.ENDPOINTS),
    (RunOut, autointerp_examples.RUN),
]


@pytest.mark.parametrize(("shape", "example"), SHAPES, ids=lambda value: getattr(value, "__name__", ""))
def test_examples_are_answers_as_they_could_be(shape: type[BaseModel], example: dict[str, Any]) -> None:
    value = TypeAdapter(shape).validate_python(example)
    assert value.model_dump(mode="json") == example
