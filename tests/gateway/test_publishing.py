"""Publishing through the gateway, with the real ingest API behind it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from interpedia_gateway.app import create_app
from interpedia_ingest.app import create_app as create_ingest
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import calling, gateway_settings
from tests.support.factories import World, make_account
from tests.support.serving import serving

CONTENT = b'{"id": "a", "source": "own", "licence": "CC0-1.0", "text": "By the river."}\n'


@pytest.fixture
async def publisher(
    own_world: World, database_settings: DatabaseSettings, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """The owner, calling a gateway that forwards to a real ingest API."""
    ingest = create_ingest(
        IngestSettings(data_dir=tmp_path, part_bytes=40, reserve_bytes=0), database_settings
    )
    with serving(ingest) as url:
        async with calling(create_app(gateway_settings(tmp_path, url), database_settings)) as client:
            client.headers["x-api-key"] = own_world.key
            yield client


def declared(content: bytes = CONTENT) -> dict[str, object]:
    """The body that announces a corpus."""
    digest = hashlib.sha256(content).hexdigest()
    return {"kind": "corpus", "files": [{"name": "texts.jsonl", "size": len(content), "sha256": digest}]}


ROUTES = [
    ("POST", "/v1/uploads", declared()),
    ("GET", "/v1/uploads/5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10", None),
    ("PUT", "/v1/uploads/5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10/parts/1", None),
    ("POST", "/v1/uploads/5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10/complete", None),
    (
        "POST",
        "/v1/saes",
        {"model": "tiny", "corpus": "texts", "name": "x", "hook": "blocks.1.hook_resid_post"},
    ),
    ("POST", "/v1/models", {"id": "m", "name": "M", "source": {"kind": "tiny"}}),
    (
        "POST",
        "/v1/corpora",
        {"id": "c", "name": "C", "upload": "5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10", "model": "tiny"},
    ),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_no_key_or_a_wrong_one_is_401_before_anything_is_sent_on(
    client: httpx.AsyncClient, method: str, path: str, body: object
) -> None:
    for headers in ({}, {"x-api-key": "ip_1234_no"}):
        answer = await client.request(method, path, json=body, headers=headers)
        assert answer.status_code == 401, answer.text


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_no_ingest_is_503_with_retry_after(
    client: httpx.AsyncClient, world: World, method: str, path: str, body: object
) -> None:
    answer = await client.request(method, path, json=body, headers={"x-api-key": world.key})
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"].endswith("unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_scopes_are_checked(client: httpx.AsyncClient, world: World, shared_database: Database) -> None:
    async with shared_database.write() as session:
        _, reader = await make_account(session, "reader", scopes=())
        _, plain = await make_account(session, "plain", scopes=("publish",))
    for method, path, body in ROUTES:
        answer = await client.request(method, path, json=body, headers={"x-api-key": reader})
        assert answer.status_code == 403
    model = {"id": "m", "name": "M", "source": {"kind": "tiny"}}
    assert (await client.post("/v1/models", json=model, headers={"x-api-key": plain})).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/uploads", {"kind": "sae", "files": []}, "#/files"),
        ("/v1/uploads", {**declared(), "extra": 1}, "#/extra"),
        ("/v1/models", {"id": "Bad Id", "name": "x", "source": {"kind": "tiny"}}, "#/id"),
        ("/v1/models", {"id": "a", "name": "x", "source": {"kind": "url"}}, "#/source"),
        ("/v1/saes", {"model": "tiny", "corpus": "texts"}, "#/"),
    ],
)
async def test_wrong_fields_are_refused_here_already(
    client: httpx.AsyncClient, world: World, path: str, body: object, field: str
) -> None:
    answer = await client.post(path, json=body, headers={"x-api-key": world.key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient, world: World) -> None:
    answer = await client.put(
        "/v1/uploads/5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10/parts/1",
        content=b"x" * (16 * 1024 * 1024 + 1),
        headers={"x-api-key": world.key},
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("once", ["é".encode(), b"a b", b"x" * 201])
async def test_an_idempotency_key_that_is_no_token_is_422(
    client: httpx.AsyncClient, world: World, once: bytes
) -> None:
    headers = {b"x-api-key": world.key.encode(), b"idempotency-key": once}
    answer = await client.post("/v1/uploads", json=declared(), headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == "idempotency-key"


async def test_only_the_key_that_was_checked_is_sent_on(publisher: httpx.AsyncClient) -> None:
    key = publisher.headers.pop("x-api-key")
    headers = {b"authorization": b"Bearer " + key.encode() + b"\xa0", b"x-api-key": "é".encode()}
    answer = await publisher.post("/v1/uploads", json=declared(), headers=headers)
    assert answer.status_code == 201, answer.text


async def test_an_upload_goes_through_part_by_part(publisher: httpx.AsyncClient) -> None:
    once = {"Idempotency-Key": "first"}
    made = await publisher.post("/v1/uploads", json=declared(), headers=once)
    assert made.status_code == 201, made.text
    upload = made.json()
    assert (await publisher.post("/v1/uploads", json=declared(), headers=once)).json() == upload
    other = await publisher.post("/v1/uploads", json=declared(b"{}\n"), headers=once)
    assert other.status_code == 409
    assert other.json()["type"].endswith("idempotency-mismatch")
    path = f"/v1/uploads/{upload['id']}"
    too_early = await publisher.post(f"{path}/complete")
    assert too_early.status_code in (409, 422)
    for part in upload["parts"]:
        chunk = CONTENT[part["offset"] : part["offset"] + part["size"]]
        wrong = await publisher.put(
            f"{path}/parts/{part['n']}", content=chunk, headers={"x-content-sha256": "0" * 64}
        )
        assert wrong.status_code == 422
        assert wrong.json()["type"].endswith("bad-upload")
        sent = await publisher.put(f"{path}/parts/{part['n']}", content=chunk)
        assert (sent.status_code, sent.content) == (204, b"")
    assert all(part["received"] for part in (await publisher.get(path)).json()["parts"])
    done = await publisher.post(f"{path}/complete")
    assert (done.status_code, done.json()["state"]) == (200, "complete")


async def test_problems_of_ingest_come_back_untouched(publisher: httpx.AsyncClient) -> None:
    request_id = {"x-request-id": "mine-123"}
    answer = await publisher.get("/v1/uploads/5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10", headers=request_id)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get_list("x-request-id") == ["mine-123"]
    assert answer.json()["request_id"] == "mine-123"
    assert answer.json()["type"].endswith("upload-not-found")


async def test_a_model_is_registered_by_a_job(publisher: httpx.AsyncClient) -> None:
    body = {"id": "tiny-two", "name": "Tiny", "source": {"kind": "tiny"}}
    answer = await publisher.post("/v1/models", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert (await publisher.get(f"/v1/jobs/{job['id']}")).json()["kind"] == "register_model"
