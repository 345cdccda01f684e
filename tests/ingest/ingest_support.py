"""A researcher against the ingest API in this process, and workers beside it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import lzma
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from interpedia_engine.hooks import ModelShape, parse_hook
from interpedia_engine.saes import tiny_sae
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.worker import make_handlers
from interpedia_shared.accounts import rotate_owner_key
from interpedia_shared.auth import SCOPE_PUBLISH, new_key
from interpedia_shared.db.base import Base
from interpedia_shared.db.models import Account, APIKey
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import JobOut, WorkerTiming
from interpedia_shared.settings import DatabaseSettings
from tests.support.forking import ForkedProcess
from tests.support.jobs import QUICK, until_state, working

HOOK = "blocks.2.hook_resid_post"
CONTEXT_LENGTH = 32
SHAPE = ModelShape(n_layers=4, d_model=64, d_mlp=160, n_heads=4, d_head=16, d_vocab=0, architecture="llama")
_SENTENCES = (
    "The cat sat by the river and the bird sang in the tree. ",
    "People in the city have more time for music when it is not raining! ",
    "Blue light was on the water; green was the house, and red the door. ",
    "What can one dog do that all other dogs would not? Naïve café, 雨 and 🙂. ",
)


def documents(count: int, *, repeat: int = 12) -> list[dict[str, str]]:
    """Texts that differ from one another."""
    return [
        {
            "id": f"doc-{number}",
            "source": "made up",
            "licence": "CC0-1.0" if number % 2 else "Apache-2.0",
            "text": f"{number}: " + "".join(_SENTENCES[(number + k) % 4] for k in range(repeat + number % 3)),
        }
        for number in range(count)
    ]


def jsonl(rows: list[Any]) -> bytes:
    """Lines of JSON."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def xz(data: bytes) -> bytes:
    """The same, compressed."""
    return lzma.compress(data)


def sae_files(
    folder: Path, *, hook: str = HOOK, d_sae: int = 96, seed: int = 0, **overrides: Any
) -> dict[str, bytes]:
    """An SAE's files as a researcher has them."""
    path = tiny_sae(
        folder / uuid.uuid4().hex,
        shape=SHAPE,
        hook=parse_hook(hook, SHAPE),
        d_sae=d_sae,
        seed=seed,
        overrides=overrides,
    )
    return {file.name: file.read_bytes() for file in path.iterdir()}


def declared(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """What `POST /v1/uploads` wants to know of files."""
    return [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]


class Researcher:
    """Somebody with a key."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.http = http
        self.headers = {"Authorization": f"Bearer {key}"}

    async def post(self, path: str, body: Any, *, once: str | None = None) -> httpx.Response:
        """POST JSON."""
        headers = self.headers | ({"Idempotency-Key": once} if once else {})
        return await self.http.post(path, json=body, headers=headers)

    async def get(self, path: str) -> httpx.Response:
        """GET with the key."""
        return await self.http.get(path, headers=self.headers)

    async def put(self, path: str, data: bytes, **headers: str) -> httpx.Response:
        """PUT raw bytes."""
        return await self.http.put(path, content=data, headers=self.headers | headers)

    async def open_upload(self, kind: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Declare files."""
        answer = await self.post("/v1/uploads", {"kind": kind, "files": declared(files)})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def upload(self, kind: str, files: Mapping[str, bytes]) -> str:
        """Send files whole; the id of the complete upload."""
        upload = await self.open_upload(kind, files)
        await asyncio.gather(*(self.send(upload, part, files) for part in upload["parts"]))
        answer = await self.post(f"/v1/uploads/{upload['id']}/complete", None)
        assert answer.status_code == 200, answer.text
        return upload["id"]

    async def send(self, upload: dict[str, Any], part: dict[str, Any], files: Mapping[str, bytes]) -> None:
        """Send one part."""
        data = files[part["file"]][part["offset"] : part["offset"] + part["size"]]
        answer = await self.put(f"/v1/uploads/{upload['id']}/parts/{part['n']}", data)
        assert answer.status_code == 204, answer.text

    async def order_model(self, model: str = "tiny") -> dict[str, Any]:
        """Register the tiny model."""
        answer = await self.post("/v1/models", {"id": model, "name": "Tiny", "source": {"kind": "tiny"}})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def order_corpus(
        self, data: bytes, *, corpus: str = "words", name: str = "words.jsonl", **fields: Any
    ) -> httpx.Response:
        """Upload and publish a corpus."""
        upload = await self.upload("corpus", {name: data})
        body = {"id": corpus, "name": "Words", "upload": upload, "model": "tiny"}
        return await self.post("/v1/corpora", body | {"context_length": CONTEXT_LENGTH} | fields)

    async def order_sae(
        self, files: Mapping[str, bytes], *, name: str = "2-res-96", hook: str = HOOK, **fields: Any
    ) -> httpx.Response:
        """Upload and publish one SAE."""
        upload = await self.upload("sae", files)
        body = {"model": "tiny", "corpus": "words", "name": name, "hook": hook, "upload": upload}
        return await self.post("/v1/saes", body | fields)


async def new_researcher(database: Database, http: httpx.AsyncClient, name: str = "owner") -> Researcher:
    """An account with a key: `owner` may administer, others only publish."""
    async with database.write() as session:
        if name == "owner":
            return Researcher(http, await rotate_owner_key(session))
        key, prefix, digest = new_key()
        account = Account(name=name)
        session.add(account)
        await session.flush()
        session.add(APIKey(account_id=account.id, prefix=prefix, sha256=digest, scopes=[SCOPE_PUBLISH]))
        return Researcher(http, key)


@asynccontextmanager
async def ingesting(
    database_settings: DatabaseSettings, settings: IngestSettings, timing: WorkerTiming = QUICK
) -> AsyncIterator[None]:
    """A worker in this process."""
    async with working(database_settings, make_handlers(settings), timing=timing):
        yield


async def finished(database: Database, accepted: dict[str, Any]) -> JobOut:
    """The job of an answer, once it has ended."""
    job = accepted["job"]
    return await until_state(database, uuid.UUID(job["id"]), "succeeded", "failed", "cancelled")


async def row_counts(database: Database, *tables: type[Base]) -> dict[str, int]:
    """How many rows each table has."""
    async with database.read() as session:
        return {
            table.__tablename__: (await session.execute(select(func.count()).select_from(table))).scalar_one()
            for table in tables
        }


def assert_problem(answer: httpx.Response, status: int, slug: str, field: str, *facts: str) -> None:
    """A problem+json of this type that names the field and the facts."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert (answer.status_code, body["type"].rsplit("/", 1)[-1]) == (status, slug), body
    assert [error["field"] for error in body["errors"]] == [field], body
    for fact in facts:
        assert fact in body["errors"][0]["detail"], body


class WorkerProcess:
    """What `python -m interpedia_ingest.worker` runs, to be killed."""

    def __init__(self, url: str, settings: IngestSettings) -> None:
        self.log = settings.data_dir / f"worker-{uuid.uuid4().hex[:6]}.log"
        names = ("data_dir", "rows_per_shard", "features_per_task", "torch_threads", "heartbeat_timeout_s")
        environment = {
            **os.environ,
            "INTERPEDIA_DATABASE__URL": url,
            **{f"INTERPEDIA_{name.upper()}": str(getattr(settings, name)) for name in names},
        }
        self.process = ForkedProcess(
            "interpedia_ingest.worker", environment, self.log, warm=("interpedia_engine.models.loading",)
        )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
