"""Uploads: the protocol, what is refused, and what broken transfers leave behind."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from interpedia_ingest.app import create_app
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.uploads.files import UploadFolder
from interpedia_ingest.uploads.parts import plan_parts
from interpedia_ingest.uploads.service import UploadService
from interpedia_shared.blobs import BlobStore
from interpedia_shared.db.models import Upload, UploadFile
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.ingest.ingest_support import Researcher, assert_problem, declared, new_researcher, row_counts
from tests.support.jobs import until

FILES = {"cfg.json": b'{"a": 1}', "sae_weights.safetensors": bytes(range(256)) * 100}


def blob(settings: IngestSettings, data: bytes) -> Path:
    return DataFolder(settings).blobs.path(f"blob:{hashlib.sha256(data).hexdigest()}")


def leftovers(settings: IngestSettings) -> list[Path]:
    return list(DataFolder(settings).uploads.rglob("*"))


@pytest.fixture
def settings(settings: IngestSettings, tmp_path: Path) -> IngestSettings:
    """A data folder of each test's own."""
    return settings.model_copy(update={"data_dir": tmp_path})


async def put_and_vanish(app: FastAPI, path: str, headers: dict[str, str]) -> None:
    """A client that sends half of a part and is gone."""
    messages: list[Any] = [
        {"type": "http.request", "body": b"x" * 5_000, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(_message: Any) -> None:
        return None

    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "PUT", "path": path, "query_string": b"", "headers": encoded}
    await app(scope, receive, send)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.integers(1, 100))
def test_parts_cover_every_byte_once(sizes: list[int], part_bytes: int) -> None:
    parts = plan_parts(sizes, part_bytes)
    assert [part.n for part in parts] == list(range(1, len(parts) + 1))
    assert all(1 <= part.size <= part_bytes for part in parts)
    for number, size in enumerate(sizes):
        covered = [
            k for part in parts if part.file == number for k in range(part.offset, part.offset + part.size)
        ]
        assert covered == list(range(size))


class TestProtocol:
    async def test_parts_in_any_order_at_once_and_again(
        self, owner: Researcher, settings: IngestSettings
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        assert (upload["state"], upload["part_bytes"]) == ("open", 10_000)
        assert [(part["n"], part["file"], part["offset"], part["size"]) for part in upload["parts"]] == [
            (1, "cfg.json", 0, 8),
            (2, "sae_weights.safetensors", 0, 10_000),
            (3, "sae_weights.safetensors", 10_000, 10_000),
            (4, "sae_weights.safetensors", 20_000, 5_600),
        ]
        parts = [*reversed(upload["parts"]), upload["parts"][2], upload["parts"][2]]
        await asyncio.gather(*(owner.send(upload, part, FILES) for part in parts))
        shown = (await owner.get(f"/v1/uploads/{upload['id']}")).json()
        assert all(part["received"] for part in shown["parts"])
        first, second = await asyncio.gather(
            *(owner.post(f"/v1/uploads/{upload['id']}/complete", None) for _ in range(2))
        )
        again = await owner.post(f"/v1/uploads/{upload['id']}/complete", None)
        for answer in (first, second, again):
            assert answer.status_code == 200, answer.text
            assert answer.json()["state"] == "complete"
        for data in FILES.values():
            assert blob(settings, data).read_bytes() == data
        assert leftovers(settings) == []

    async def test_the_same_files_twice_are_one_blob(
        self, owner: Researcher, settings: IngestSettings
    ) -> None:
        await owner.upload("sae", FILES)
        await owner.upload("sae", FILES)
        kept = [path for path in DataFolder(settings).blobs.root.rglob("*") if path.is_file()]
        assert len(kept) == 2

    async def test_what_was_received_survives_a_broken_transfer(
        self, owner: Researcher, settings: IngestSettings, app: FastAPI
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        await owner.send(upload, upload["parts"][1], FILES)
        await put_and_vanish(app, f"/v1/uploads/{upload['id']}/parts/2", owner.headers)
        shown = (await owner.get(f"/v1/uploads/{upload['id']}")).json()
        assert [part["n"] for part in shown["parts"] if part["received"]] == [2]
        assert [path.suffix for path in leftovers(settings) if path.is_file()] == [".part"]

    async def test_completion_says_which_parts_are_missing(self, owner: Researcher) -> None:
        upload = await owner.open_upload("sae", FILES)
        await owner.send(upload, upload["parts"][0], FILES)
        answer = await owner.post(f"/v1/uploads/{upload['id']}/complete", None)
        assert answer.status_code == 409
        assert answer.json()["missing"] == [2, 3, 4]

    async def test_a_completion_cut_off_before_its_commit_can_be_repeated(
        self, owner: Researcher, settings: IngestSettings
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        for part in upload["parts"]:
            await owner.send(upload, part, FILES)
        folder = DataFolder(settings)
        moved = folder.uploads / upload["id"] / "000001.part"
        folder.blobs.adopt(moved, hashlib.sha256(FILES["cfg.json"]).hexdigest())
        answer = await owner.post(f"/v1/uploads/{upload['id']}/complete", None)
        assert answer.status_code == 200, answer.text

    async def test_parts_that_vanished_are_asked_for_again(
        self, owner: Researcher, settings: IngestSettings
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        for part in upload["parts"]:
            await owner.send(upload, part, FILES)
        (DataFolder(settings).uploads / upload["id"] / "000003.part").unlink()
        path = f"/v1/uploads/{upload['id']}"
        assert (await owner.post(f"{path}/complete", None)).status_code == 409
        shown = (await owner.get(path)).json()
        for part in shown["parts"]:
            if not part["received"]:
                await owner.send(upload, part, FILES)
        assert (await owner.post(f"{path}/complete", None)).status_code == 200

    async def test_the_same_key_opens_one_upload(self, owner: Researcher, database: Database) -> None:
        body = {"kind": "sae", "files": declared(FILES)}
        answers = await asyncio.gather(*(owner.post("/v1/uploads", body, once="k") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert (await row_counts(database, Upload))["upload"] == 1
        other = await owner.post("/v1/uploads", body | {"files": declared({"cfg.json": b"{}"})}, once="k")
        assert other.status_code == 409
        assert other.json()["type"].endswith("/idempotency-mismatch")


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("sae", "../cfg.json"),
            ("sae", "/etc/passwd"),
            ("sae", "weights.pt"),
            ("sae", "weights.bin"),
            ("sae", "a\\b.safetensors"),
            ("sae", "a..b.safetensors"),
            ("sae", ".safetensors"),
            ("sae", "x.jsonl"),
            ("corpus", "x.csv"),
            ("corpus", "x.jsonl.gz"),
            ("corpus", "cfg.json"),
        ],
    )
    async def test_names(self, owner: Researcher, database: Database, kind: str, name: str) -> None:
        files = declared({name: b"x", "cfg.json": b"{}"} if kind == "sae" else {name: b"x"})
        answer = await owner.post("/v1/uploads", {"kind": kind, "files": files})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "#/files/0/name"
        assert (await row_counts(database, Upload, UploadFile)) == {"upload": 0, "upload_file": 0}

    async def test_sizes(self, owner: Researcher) -> None:
        large = [{"name": "cfg.json", "size": 65_537, "sha256": "0" * 64}]
        answer = await owner.post("/v1/uploads", {"kind": "sae", "files": large})
        assert_problem(answer, 413, "too-large", "#/files/0/size", "65537", "65536")
        files = [
            *declared({"cfg.json": b"{}"}),
            {"name": "w.safetensors", "size": 999_999, "sha256": "0" * 64},
        ]
        answer = await owner.post("/v1/uploads", {"kind": "sae", "files": files})
        assert_problem(answer, 413, "too-large", "#/files", "1000001", "1000000")

    async def test_sets_of_files(self, owner: Researcher) -> None:
        alone = declared({"w.safetensors": b"x"})
        answer = await owner.post("/v1/uploads", {"kind": "sae", "files": alone})
        assert_problem(answer, 422, "bad-upload", "#/files", "cfg.json")
        two = declared({"a.jsonl": b"x", "b.jsonl": b"x"})
        answer = await owner.post("/v1/uploads", {"kind": "corpus", "files": two})
        assert_problem(answer, 422, "bad-upload", "#/files", "one file, not 2")

    @pytest.mark.parametrize("data", [b"x" * 9_999, b"x" * 10_001, b"", b"x" * 40_000])
    async def test_a_part_of_another_size(
        self, owner: Researcher, settings: IngestSettings, data: bytes
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        answer = await owner.put(f"/v1/uploads/{upload['id']}/parts/2", data)
        assert_problem(answer, 422, "bad-upload", "body", "part 2 has 10000 bytes")
        assert [path for path in leftovers(settings) if path.is_file()] == []

    async def test_a_part_with_another_hash(self, owner: Researcher) -> None:
        upload = await owner.open_upload("sae", FILES)
        path = f"/v1/uploads/{upload['id']}/parts/1"
        wrong = await owner.put(path, FILES["cfg.json"], **{"x-content-sha256": "0" * 64})
        assert_problem(wrong, 422, "bad-upload", "x-content-sha256", "part 1")
        right = hashlib.sha256(FILES["cfg.json"]).hexdigest()
        assert (await owner.put(path, FILES["cfg.json"], **{"x-content-sha256": right})).status_code == 204

    async def test_a_file_with_another_hash_is_sent_again(
        self, owner: Researcher, settings: IngestSettings
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        altered = {**FILES, "sae_weights.safetensors": bytes(25_600)}
        for part in upload["parts"]:
            await owner.send(upload, part, altered)
        path = f"/v1/uploads/{upload['id']}"
        answer = await owner.post(f"{path}/complete", None)
        assert_problem(answer, 422, "bad-upload", "#/files/1/sha256", "sae_weights.safetensors")
        shown = (await owner.get(path)).json()
        assert shown["state"] == "open"
        assert [part["received"] for part in shown["parts"]] == [True, False, False, False]
        for part in shown["parts"]:
            await owner.send(upload, part, FILES)
        assert (await owner.post(f"{path}/complete", None)).status_code == 200
        assert blob(settings, FILES["sae_weights.safetensors"]).is_file()
        assert not blob(settings, bytes(25_600)).exists()

    async def test_parts_that_do_not_exist(self, owner: Researcher) -> None:
        upload = await owner.open_upload("sae", FILES)
        answer = await owner.put(f"/v1/uploads/{upload['id']}/parts/5", b"x")
        assert (answer.status_code, answer.json()["last"]) == (404, 4)
        assert (await owner.put(f"/v1/uploads/{upload['id']}/parts/0", b"x")).status_code == 422

    async def test_a_complete_upload_takes_no_parts(
        self, owner: Researcher, settings: IngestSettings
    ) -> None:
        upload_id = await owner.upload("sae", FILES)
        assert (await owner.put(f"/v1/uploads/{upload_id}/parts/1", b"12345678")).status_code == 409
        assert blob(settings, FILES["cfg.json"]).read_bytes() == FILES["cfg.json"]

    async def test_somebody_else_s_upload_does_not_exist(
        self, owner: Researcher, database: Database, http: httpx.AsyncClient
    ) -> None:
        upload = await owner.open_upload("sae", FILES)
        other = await new_researcher(database, http, "other")
        path = f"/v1/uploads/{upload['id']}"
        for answer in (
            await other.get(path),
            await other.put(f"{path}/parts/1", FILES["cfg.json"]),
            await other.post(f"{path}/complete", None),
            await owner.get(f"/v1/uploads/{uuid.uuid4()}"),
        ):
            assert answer.status_code == 404
            assert answer.json()["type"].endswith("/upload-not-found")

    async def test_keys(self, owner: Researcher, http: httpx.AsyncClient) -> None:
        body = {"kind": "sae", "files": declared(FILES)}
        assert (await http.post("/v1/uploads", json=body)).status_code == 401
        wrong = {"Authorization": "Bearer ip_00000000_nonsense"}
        assert (await http.post("/v1/uploads", json=body, headers=wrong)).status_code == 401

    async def test_open_uploads_are_counted(self, owner: Researcher) -> None:
        for _ in range(8):
            await owner.open_upload("sae", FILES)
        answer = await owner.post("/v1/uploads", {"kind": "sae", "files": declared(FILES)})
        assert (answer.status_code, answer.json()["limit"]) == (409, 8)


class TestDisk:
    async def test_no_room_for_an_upload(
        self, database: Database, database_settings: DatabaseSettings, settings: IngestSettings
    ) -> None:
        full = settings.model_copy(update={"reserve_bytes": 1 << 60})
        app = create_app(full, database_settings)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as http:
            owner = await new_researcher(database, http)
            answer = await owner.post("/v1/uploads", {"kind": "sae", "files": declared(FILES)})
            ready = await http.get("/readyz")
        await app.state.database.dispose()
        assert answer.status_code == 503
        assert "The data disk has room for 0 more bytes" in answer.json()["detail"]
        assert "Retry-After" in answer.headers
        assert (await row_counts(database, Upload))["upload"] == 0
        assert ready.json()["checks"] == {
            "database": "ok",
            "data_folder": "ok",
            "free_space": "The data disk has room for 0 more bytes, 1 are needed. Nothing was kept.",
        }

    async def test_a_disk_that_fills_up_in_a_part(self, owner: Researcher, settings: IngestSettings) -> None:
        upload = await owner.open_upload("sae", FILES)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
        try:
            answer = await owner.put(f"/v1/uploads/{upload['id']}/parts/2", bytes(10_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert answer.status_code == 503
        assert "The data disk is full" in answer.json()["detail"]
        assert [path for path in leftovers(settings) if path.is_file()] == []
        shown = (await owner.get(f"/v1/uploads/{upload['id']}")).json()
        assert not any(part["received"] for part in shown["parts"])


class TestSweep:
    async def test_old_open_uploads_go_with_their_files(
        self, owner: Researcher, database: Database, settings: IngestSettings
    ) -> None:
        old = await owner.open_upload("sae", FILES)
        await owner.send(old, old["parts"][0], FILES)
        kept = await owner.upload("sae", FILES)
        async with database.write() as session:
            await session.execute(text("UPDATE upload SET created_at = now() - interval '25 hours'"))
        young = await owner.open_upload("sae", FILES)
        await owner.send(young, young["parts"][0], FILES)
        await UploadService(database, DataFolder(settings), settings).sweep()
        assert (await owner.get(f"/v1/uploads/{old['id']}")).status_code == 404
        assert (await owner.get(f"/v1/uploads/{kept}")).json()["state"] == "complete"
        folders = [path.name for path in leftovers(settings) if path.is_dir()]
        assert folders == [young["id"]]


def test_what_was_hashed_is_what_is_kept(tmp_path: Path) -> None:
    folder, blobs = UploadFolder(tmp_path, uuid.uuid4()), BlobStore(tmp_path / "blobs")
    folder.path.mkdir()
    folder.part(1).write_bytes(b"good")
    path, sha256, _ = folder.join([1])
    folder.part(1).write_bytes(b"evil")
    uri = blobs.adopt(path, sha256)
    late = tmp_path / "late"
    late.write_bytes(b"evil")
    assert blobs.adopt(late, sha256) == uri
    assert (blobs.path(uri).read_bytes(), late.exists()) == (b"good", False)


async def test_the_service_sweeps_by_itself(
    owner: Researcher, app: FastAPI, database: Database, settings: IngestSettings
) -> None:
    old = await owner.open_upload("sae", FILES)
    async with database.write() as session:
        await session.execute(text("UPDATE upload SET created_at = now() - interval '25 hours'"))

    async def gone() -> bool:
        return (await row_counts(database, Upload))["upload"] == 0

    async with app.router.lifespan_context(app):
        await until(gone)
    assert (await owner.get(f"/v1/uploads/{old['id']}")).status_code == 404


def test_the_api_never_imports_torch() -> None:
    program = "import sys, interpedia_ingest.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_parts_must_fit_into_a_body() -> None:
    with pytest.raises(ValueError, match="part_bytes"):
        IngestSettings(part_bytes=20_000_000, max_body_bytes=10_000_000)


def test_folders_of_models_are_read_like_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPEDIA_MODEL_DIRS", "/a:/b")
    assert IngestSettings().model_dirs == (Path("/a"), Path("/b"))


async def test_health(http: httpx.AsyncClient) -> None:
    assert (await http.get("/livez")).json()["service"] == "ingest"
    assert (await http.get("/readyz")).status_code == 200
    assert "interpedia_requests_total" in (await http.get("/metrics")).text
