"""The other side: a small server that speaks the API's protocols on real sockets, and misbehaves if told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.serving import serving

PART_BYTES = 1000
KEY = "good-key"


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]
    body: bytes


@dataclass
class Script:
    """What the server holds and how it is to misbehave."""

    seen: list[Seen] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)
    """Given first, one per request, before anything is looked at."""
    lost_parts: set[int] = field(default_factory=set)
    """Parts that are refused with 503 for as long as they stand here."""
    damaged_once: set[int] = field(default_factory=set)
    uploads: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[tuple[str, str], bytearray] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    corpora: dict[str, dict[str, Any]] = field(default_factory=dict)
    saes: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    job_ends: str = "succeeded"
    job_steps: int = 3
    on_job_end: dict[str, Any] = field(default_factory=dict)

    def of(self, method: str, path: str) -> list[Seen]:
        """The requests of one method whose path begins so."""
        return [
            request for request in self.seen if request.method == method and request.path.startswith(path)
        ]


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


class Api:
    """The routes."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def app(self) -> Starlette:
        table = {
            ("POST", "/v1/uploads"): self.open_upload,
            ("GET", "/v1/uploads/{id}"): self.get_upload,
            ("PUT", "/v1/uploads/{id}/parts/{n:int}"): self.put_part,
            ("POST", "/v1/uploads/{id}/complete"): self.complete_upload,
            ("GET", "/v1/models/{model}"): self.get_model,
            ("POST", "/v1/models"): self.post_model,
            ("GET", "/v1/corpora/{corpus}"): self.get_corpus,
            ("POST", "/v1/corpora"): self.post_corpus,
            ("GET", "/v1/models/{model}/saes/{sae}"): self.get_sae,
            ("POST", "/v1/saes"): self.post_saes,
            ("GET", "/v1/models/{model}/saes/{sae}/features"): self.list_features,
            ("GET", "/v1/models/{model}/saes/{sae}/features/{index:int}"): self.get_feature,
            ("GET", "/v1/jobs"): self.list_jobs,
            ("GET", "/v1/jobs/{id}"): self.get_job,
            ("GET", "/v1/jobs/{id}/events"): self.job_events,
            ("POST", "/v1/jobs/{id}/retry"): self.retry_job,
        }
        routes = [
            Route(path, self._scripted(handler), methods=[method])
            for (method, path), handler in table.items()
        ]
        return Starlette(routes=routes)

    def _scripted(self, handler: Any) -> Any:
        async def run(request: Request) -> Response:
            headers = dict(request.headers)
            body = await request.body()
            query = dict(request.query_params)
            self.script.seen.append(Seen(request.method, request.url.path, headers, query, body))
            if self.script.answers:
                return self.script.answers.pop(0)
            if request.method != "GET" and headers.get("authorization") != f"Bearer {KEY}":
                return problem(401, "This needs a valid API key.")
            return await handler(request)

        return run

    async def open_upload(self, request: Request) -> Response:
        wanted = await request.json()
        parts: list[dict[str, Any]] = []
        for file in wanted["files"]:
            for offset in range(0, file["size"], PART_BYTES):
                size = min(PART_BYTES, file["size"] - offset)
                parts.append(
                    {
                        "n": len(parts) + 1,
                        "file": file["name"],
                        "offset": offset,
                        "size": size,
                        "received": False,
                    }
                )
        upload = {
            "id": str(uuid.uuid4()),
            "state": "open",
            "part_bytes": PART_BYTES,
            "parts": parts,
            **wanted,
        }
        self.script.uploads[upload["id"]] = upload
        for file in wanted["files"]:
            self.script.stored[upload["id"], file["name"]] = bytearray(file["size"])
        return JSONResponse(upload, 201)

    async def get_upload(self, request: Request) -> Response:
        upload = self.script.uploads.get(request.path_params["id"])
        return JSONResponse(upload) if upload else problem(404, "No such upload.")

    async def put_part(self, request: Request) -> Response:
        upload, n = self.script.uploads[request.path_params["id"]], request.path_params["n"]
        if n in self.script.lost_parts:
            return problem(503, "Not now.", {"retry-after": "0"})
        content = await request.body()
        if n in self.script.damaged_once:
            self.script.damaged_once.remove(n)
            content = b"?" + content[1:]
        if hashlib.sha256(content).hexdigest() != request.headers["x-content-sha256"]:
            return problem(422, f"Part {n} arrived damaged.")
        part = upload["parts"][n - 1]
        stored = self.script.stored[upload["id"], part["file"]]
        stored[part["offset"] : part["offset"] + part["size"]] = content
        part["received"] = True
        return Response(status_code=204)

    async def complete_upload(self, request: Request) -> Response:
        upload = self.script.uploads[request.path_params["id"]]
        for file in upload["files"]:
            stored = self.script.stored[upload["id"], file["name"]]
            if hashlib.sha256(stored).hexdigest() != file["sha256"]:
                return problem(422, f"{file['name']} is not what was announced.")
        upload["state"] = "complete"
        return JSONResponse(upload)

    async def get_model(self, request: Request) -> Response:
        model = self.script.models.get(request.path_params["model"])
        return JSONResponse(model) if model else problem(404, "No such model.")

    async def post_model(self, request: Request) -> Response:
        wanted = await request.json()
        job = self._new_job("register_model", models={wanted["id"]: {"id": wanted["id"]}})
        return JSONResponse({"model": wanted["id"], "job": job}, 202)

    async def get_corpus(self, request: Request) -> Response:
        corpus = self.script.corpora.get(request.path_params["corpus"])
        return JSONResponse(corpus) if corpus else problem(404, "No such corpus.")

    async def post_corpus(self, request: Request) -> Response:
        wanted = await request.json()
        ready = {"id": wanted["id"], "state": "ready", "job": None}
        job = self._new_job("tokenize_corpus", corpora={wanted["id"]: ready})
        return JSONResponse({"corpus": wanted["id"], "job": job}, 202)

    async def get_sae(self, request: Request) -> Response:
        sae = self.script.saes.get(request.path_params["sae"])
        return JSONResponse(sae) if sae else problem(404, "No such SAE.")

    async def post_saes(self, request: Request) -> Response:
        wanted = await request.json()
        names = [entry["name"] for entry in wanted["saes"]]
        base = {"model": wanted["model"], "hook": "h"}
        ready = {name: {**base, "sae": name, "state": "ready", "version": 1} for name in names}
        job = self._new_job("build_dashboards", saes=ready)
        reference = {key: job[key] for key in ("id", "state", "done", "total")}
        building = [
            {**base, "sae": name, "state": "building", "version": None, "job": reference} for name in names
        ]
        self.script.saes |= {sae["sae"]: sae for sae in building}
        return JSONResponse({"sae": None, "saes": building, "job": job}, 202)

    async def list_features(self, request: Request) -> Response:
        start = int(request.query_params.get("cursor", "0"))
        limit = int(request.query_params.get("limit", "2"))
        items = [self._feature(request, index) for index in range(start, min(start + limit, 5))]
        following = str(start + limit) if start + limit < 5 else None
        return JSONResponse({"items": items, "next_cursor": following})

    async def get_feature(self, request: Request) -> Response:
        index = request.path_params["index"]
        if index >= 5:
            return problem(404, f"Feature {index} is outside 0..4.")
        return JSONResponse({**self._feature(request, index), "density": 0.25})

    def _feature(self, request: Request, index: int) -> dict[str, Any]:
        model, sae = request.path_params["model"], request.path_params["sae"]
        return {"ref": f"{model}/{sae}/{index}", "model": model, "sae": sae, "index": index}

    def _new_job(self, kind: str, **on_end: dict[str, Any]) -> dict[str, Any]:
        job = {"id": str(uuid.uuid4()), "kind": kind, "state": "queued", "stage": None, "done": 0}
        job |= {"total": self.script.job_steps, "error": None}
        self.script.jobs[job["id"]] = job
        self.script.on_job_end[job["id"]] = on_end
        return job

    async def list_jobs(self, request: Request) -> Response:
        return JSONResponse({"items": list(self.script.jobs.values()), "next_cursor": None})

    async def get_job(self, request: Request) -> Response:
        job = self.script.jobs.get(request.path_params["id"])
        return JSONResponse(job) if job else problem(404, "No such job.")

    async def retry_job(self, request: Request) -> Response:
        job = self.script.jobs[request.path_params["id"]]
        job |= {"state": "queued", "done": 0, "error": None}
        return JSONResponse(job)

    async def job_events(self, request: Request) -> Response:
        """Advances the job by one step per event; breaks off after the first event of a stream."""
        job = self.script.jobs[request.path_params["id"]]
        after = int(request.headers.get("last-event-id", "0"))

        async def stream() -> AsyncIterator[str]:
            yield ": keep-alive\n\n"
            self._advance(job)
            event = {
                "id": after + 1,
                "type": "stage",
                "at": "2026-01-01T00:00:00Z",
                "data": {"done": job["done"]},
            }
            yield f"id: {after + 1}\nevent: stage\ndata: {json.dumps(event)}\n\n"
            await asyncio.sleep(0)

        return StreamingResponse(stream(), media_type="text/event-stream")

    def _advance(self, job: dict[str, Any]) -> None:
        job["done"] += 1
        job["state"], job["stage"] = "running", "shard"
        if job["done"] >= job["total"]:
            job["state"] = self.script.job_ends
            if self.script.job_ends == "succeeded":
                for name, made in self.script.on_job_end[job["id"]].items():
                    getattr(self.script, name).update(made)
            else:
                job["error"] = {"type": "x", "title": "Broken", "detail": "the last task died"}


@dataclass
class Stage:
    """A running server, and the script that it plays."""

    api: Api
    url: str

    @contextmanager
    def playing(self, script: Script) -> Generator[str]:
        """Plays `script`; gives the URL."""
        self.api.script = script
        yield self.url
        self.api.script = Script()


@pytest.fixture(scope="session")
def stage() -> Generator[Stage]:
    """One server for all scripts: starting and stopping one takes longer than most of them."""
    api = Api(Script())
    with serving(api.app()) as url:
        yield Stage(api, url)
