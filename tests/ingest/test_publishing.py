"""Publishing SAEs: every refusal names field and fact and leaves nothing; what is taken in is complete."""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text

from interpedia_engine.saes import parse_config
from interpedia_ingest.build.sweep import Sweeper
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.models import (
    SAE,
    IdempotencyKey,
    Job,
    JobTask,
    LanguageModel,
    Release,
    SAEVersion,
    Tokenizer,
)
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import cancel_job, retry_job
from tests.ingest.ingest_support import (
    HOOK,
    Researcher,
    assert_problem,
    finished,
    ingesting,
    new_researcher,
    row_counts,
    sae_files,
)

KEEPS_LIBRARY = True
KEPT = (SAE, SAEVersion, Release, Job, JobTask, IdempotencyKey)
NOTHING = dict.fromkeys((table.__tablename__ for table in KEPT), 0)
WEIGHTS = "sae_weights.safetensors"


def with_config(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    config = json.loads(files["cfg.json"])
    config["metadata"] |= changes.pop("metadata", {})
    return files | {"cfg.json": json.dumps(config | changes).encode()}


def spoil_header(data: bytes, change: Any) -> bytes:
    """The same tensors under a header that lies."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + data[8 + length :]


def with_nan(data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    values = np.frombuffer(data[8 + length :], "<f4").copy()
    values[len(values) // 2] = np.nan
    return data[: 8 + length] + values.tobytes()


def wider(header: dict[str, Any]) -> None:
    header["W_dec"]["shape"] = [96, 65]


def overlapping(header: dict[str, Any]) -> None:
    header["W_dec"]["data_offsets"] = header["W_enc"]["data_offsets"]


BAD_FILES: list[tuple[str, Any, str, tuple[str, ...]]] = [
    ("k above d_sae", lambda f: with_config(f, k=97), "#/upload", ("k", "97", "1..96")),
    ("k of zero", lambda f: with_config(f, k=0), "#/upload", ("k", "0")),
    ("k as a string", lambda f: with_config(f, k="8"), "#/upload", ("k", "integer")),
    ("width of another model", lambda f: with_config(f, d_in=768), "#/upload", ("d_in", "768", "64")),
    ("other d_sae", lambda f: with_config(f, d_sae=100), "#/upload", ("100",)),
    ("unknown architecture", lambda f: with_config(f, architecture="magic"), "#/upload", ("magic",)),
    ("temporal", lambda f: with_config(f, architecture="temporal"), "#/upload", ("temporal", "refused")),
    ("not JSON", lambda f: f | {"cfg.json": b"{"}, "#/upload", ("cfg.json", "JSON")),
    ("NaN weights", lambda f: f | {WEIGHTS: with_nan(f[WEIGHTS])}, "#/upload", ("NaN",)),
    ("a pickle", lambda f: f | {WEIGHTS: pickle.dumps({"W_dec": [1.0]})}, "#/upload", ("pickle",)),
    ("a zip", lambda f: f | {WEIGHTS: b"PK\x03\x04" + bytes(100)}, "#/upload", ("zip",)),
    ("lying shape", lambda f: f | {WEIGHTS: spoil_header(f[WEIGHTS], wider)}, "#/upload", ("W_dec",)),
    (
        "lying offsets",
        lambda f: f | {WEIGHTS: spoil_header(f[WEIGHTS], overlapping)},
        "#/upload",
        ("starts at byte",),
    ),
    ("lying length", lambda f: f | {WEIGHTS: b"\xff" * 8 + f[WEIGHTS][8:]}, "#/upload", ("header", "claims")),
    ("cut", lambda f: f | {WEIGHTS: f[WEIGHTS][:-4]}, "#/upload", ("bytes",)),
    ("no weights", lambda f: {"cfg.json": f["cfg.json"]}, "#/upload", ("weights",)),
    (
        "two weights",
        lambda f: f | {"other.safetensors": f[WEIGHTS]},
        "#/upload",
        ("weights",),
    ),
    (
        "another hook in cfg.json",
        lambda f: with_config(f, metadata={"hook_name": "blocks.1.hook_resid_post"}),
        "#/hook",
        ("blocks.2.hook_resid_post", "blocks.1.hook_resid_post"),
    ),
]


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "field", "facts"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES]
    )
    async def test_files(
        self,
        ready: Researcher,
        database: Database,
        tmp_path: Path,
        change: Any,
        field: str,
        facts: tuple[str],
    ) -> None:
        answer = await ready.order_sae(change(sae_files(tmp_path)))
        assert_problem(answer, 422, "bad-sae", field, *facts)
        assert await row_counts(database, *KEPT) == NOTHING

    @pytest.mark.parametrize(
        ("change", "field", "facts"),
        [
            ({"model": "gpt5"}, "#/model", ("gpt5",)),
            ({"corpus": "pile"}, "#/corpus", ("pile",)),
            (
                {"hook": "blocks.2.hook_resid_poost"},
                "#/hook",
                ("hook_resid_poost", "blocks.2.hook_resid_post"),
            ),
            ({"hook": "blocks.4.hook_resid_post"}, "#/hook", ("layer 4", "0..3")),
            ({"hook": "blocks.-1.hook_resid_post"}, "#/hook", ("blocks.-1",)),
            ({"n_tokens": 10**9}, "#/n_tokens", ("1000000000",)),
            ({"upload": None}, "#/upload", ("missing",)),
            ({"architecture": "identity"}, "#/upload", ("no upload",)),
            ({"upload": "5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10"}, "#/upload", ("you have no upload",)),
            ({"settings": {"ignore_positions": [32]}}, "#/settings/ignore_positions", ("32", "0..31")),
            (
                {"settings": {"ignore_positions": [*range(32)]}},
                "#/settings/ignore_positions",
                ("no position",),
            ),
        ],
    )
    async def test_manifests(
        self,
        ready: Researcher,
        database: Database,
        tmp_path: Path,
        change: dict[str, Any],
        field: str,
        facts: tuple[str],
    ) -> None:
        answer = await ready.order_sae(sae_files(tmp_path), **change)
        assert_problem(answer, 422, "bad-sae", field, *facts)
        assert await row_counts(database, *KEPT) == NOTHING

    @pytest.mark.parametrize(
        "change",
        [{"name": "Has Spaces"}, {"n_tokens": 0}, {"n_tokens": -5}, {"settings": {"typo": 1}}, {"extra": 1}],
    )
    async def test_shapes_of_requests(
        self, ready: Researcher, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        answer = await ready.order_sae(sae_files(tmp_path), **change)
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("/invalid-request")

    async def test_the_bad_one_of_several_is_named_and_none_is_kept(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        good = await ready.upload("sae", sae_files(tmp_path))
        bad = await ready.upload("sae", with_config(sae_files(tmp_path), k=97))
        saes = [
            {"name": "a", "hook": HOOK, "upload": good},
            {"name": "b", "hook": HOOK, "upload": bad},
        ]
        body = {"model": "tiny", "corpus": "words", "release": {"id": "r", "name": "R"}}
        answer = await ready.post("/v1/saes", body | {"saes": saes}, once="k")
        assert_problem(answer, 422, "bad-sae", "#/saes/1/upload", "97")
        twice = [saes[0], saes[0]]
        answer = await ready.post("/v1/saes", body | {"saes": twice})
        assert_problem(answer, 422, "bad-sae", "#/saes/1/name", "twice")
        assert await row_counts(database, *KEPT) == NOTHING

    async def test_uploads_of_the_wrong_kind_or_state(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        body = {"model": "tiny", "corpus": "words", "name": "n", "hook": HOOK}
        corpus = await ready.upload("corpus", {"x.jsonl": b"{}"})
        answer = await ready.post("/v1/saes", body | {"upload": corpus})
        assert_problem(answer, 422, "bad-sae", "#/upload", "kind 'corpus', not 'sae'")
        upload = await ready.open_upload("sae", sae_files(tmp_path))
        answer = await ready.post("/v1/saes", body | {"upload": upload["id"]})
        assert_problem(answer, 422, "bad-sae", "#/upload", "is open")
        theirs = await new_researcher(database, ready.http, "another-account")
        answer = await theirs.post("/v1/saes", body | {"upload": upload["id"]})
        assert_problem(answer, 422, "bad-sae", "#/upload", "you have no upload")

    async def test_a_corpus_of_another_tokenizer(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        async with database.write() as session:
            session.add(Tokenizer(hash="other", vocabulary=b"", size=0))
            tiny = await session.get(LanguageModel, "tiny")
            assert tiny is not None
            await session.flush()
            session.add(
                LanguageModel(
                    id="foreign",
                    name="F",
                    source={},
                    shape=tiny.shape,
                    provenance={},
                    tokenizer_hash="other",
                    bos_token_id=1,
                )
            )
        answer = await ready.order_sae(sae_files(tmp_path), model="foreign")
        async with database.write() as session:
            await session.execute(text("DELETE FROM language_model WHERE id = 'foreign'"))
        assert_problem(answer, 422, "bad-sae", "#/corpus", "another tokenizer", "foreign")

    async def test_a_corpus_that_is_not_ready(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        files = sae_files(tmp_path)
        for state, status in (("building", 409), ("failed", 422)):
            async with database.write() as session:
                await session.execute(text(f"UPDATE corpus SET state = '{state}' WHERE slug = 'words'"))
            answer = await ready.order_sae(files)
            async with database.write() as session:
                await session.execute(text("UPDATE corpus SET state = 'ready' WHERE slug = 'words'"))
            assert answer.status_code == status, answer.text
        assert await row_counts(database, *KEPT) == NOTHING

    async def test_an_identity_dictionary_is_bounded(self, ready: Researcher, database: Database) -> None:
        body = {"model": "tiny", "corpus": "words", "name": "2-mlp", "architecture": "identity"}
        body |= {"hook": "blocks.2.mlp.hook_post"}
        answer = await ready.post("/v1/saes", body)
        assert_problem(answer, 422, "bad-sae", "#/n_tokens", "160 coordinates", "limit is 300000")
        most = answer.json()["limits"]["le"]
        assert await row_counts(database, *KEPT) == NOTHING
        assert (await ready.post("/v1/saes", body | {"n_tokens": most + 1})).status_code == 422
        answer = await ready.post("/v1/saes", body | {"n_tokens": most})
        assert answer.status_code == 202
        assert answer.json()["sae"]["d_sae"] == 160


class TestTakenIn:
    async def test_rows_job_and_tasks(self, ready: Researcher, database: Database, tmp_path: Path) -> None:
        files = with_config(
            sae_files(tmp_path),
            metadata={
                "model_from_pretrained_kwargs": {"trust_remote_code": True},
                "dataset_path": "evil/dataset",
            },
            device="cuda",
        )
        answer = await ready.order_sae(
            files,
            hook="model.layers.2.output",
            n_tokens=1_000,
            title="Layer 2",
            release={"id": "demo", "name": "Demo"},
            settings={"k_top": 7},
        )
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body["sae"] == body["saes"][0]
        assert (body["sae"]["state"], body["sae"]["hook"]) == ("building", HOOK)
        async with database.read() as session:
            sae = await session.scalar(select(SAE))
            version = await session.scalar(select(SAEVersion))
            tasks = list(await session.scalars(select(JobTask).order_by(JobTask.stage, JobTask.ordinal)))
        assert sae is not None
        assert version is not None
        assert (sae.state, sae.current_version_id, sae.title) == ("building", None, "Layer 2")
        assert (sae.layer, sae.d_in, sae.d_sae, sae.architecture) == (2, 64, 96, "topk")
        assert "trust_remote_code" not in json.dumps(sae.config)
        assert "dataset_path" not in json.dumps(sae.config)
        again = parse_config(json.dumps(sae.config).encode())
        assert again == parse_config(files["cfg.json"])
        assert (version.state, str(version.job_id)) == ("building", body["job"]["id"])
        assert (version.n_contexts, version.settings["k_top"]) == (32, 7)
        assert version.provenance["hook_site"]["module"] == "model.layers.2"
        assert version.provenance["corpus"] == "words"
        assert [task.kind for task in tasks] == ["shard", "reduce", "publish"]
        assert body["job"]["params"]["saes"] == ["2-res-96"]
        assert body["job"]["total"] == 32 * 64 + 96 + 64

    async def test_the_same_key_has_one_effect(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        upload = await ready.upload("sae", sae_files(tmp_path))
        body = {"model": "tiny", "corpus": "words", "name": "n", "hook": HOOK, "upload": upload}
        answers = await asyncio.gather(*(ready.post("/v1/saes", body, once="key") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
        counts = await row_counts(database, SAE, SAEVersion, Job)
        assert counts == {"sae": 1, "sae_version": 1, "job": 1}
        late = await ready.post("/v1/saes", body, once="key")
        assert late.content == answers[0].content
        other = await ready.post("/v1/saes", body | {"name": "m"}, once="key")
        assert (other.status_code, other.json()["key"]) == (409, "key")
        without = await ready.post("/v1/saes", body)
        assert without.status_code == 409

    async def test_two_at_once_without_a_key(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        upload = await ready.upload("sae", sae_files(tmp_path))
        body = {"model": "tiny", "corpus": "words", "name": "n", "hook": HOOK, "upload": upload}
        answers = await asyncio.gather(*(ready.post("/v1/saes", body) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
        assert (await row_counts(database, SAE, Job)) == {"sae": 1, "job": 1}

    async def test_names_and_releases_of_others(
        self, ready: Researcher, database: Database, tmp_path: Path
    ) -> None:
        files = sae_files(tmp_path)
        assert (await ready.order_sae(files, release={"id": "r", "name": "R"})).status_code == 202
        other = await new_researcher(database, ready.http, "a-third-account")
        taken = await other.order_sae(files)
        assert (taken.status_code, taken.json()["field"]) == (409, "#/name")
        assert "another account" in taken.json()["detail"]
        release = await other.order_sae(files, name="mine", release={"id": "r", "name": "R"})
        assert (release.status_code, release.json()["release"]) == (409, "r")
        assert (await row_counts(database, SAE))["sae"] == 1


class TestAgain:
    async def test_after_a_failure_other_weights_may_come(
        self, ready: Researcher, database: Database, settings: IngestSettings, tmp_path: Path
    ) -> None:
        first = (await ready.order_sae(sae_files(tmp_path))).json()
        busy = await ready.order_sae(sae_files(tmp_path, seed=1))
        assert (busy.status_code, busy.json()["job"]) == (409, first["job"]["id"])
        async with database.write() as session:
            await cancel_job(session, first["job"]["id"])
        sweeper = Sweeper(database, DataFolder(settings), settings)
        await sweeper.sweep()
        assert await states(database) == ("failed", ["failed"])
        async with database.write() as session:
            await retry_job(session, first["job"]["id"])
        await sweeper.sweep()
        assert await states(database) == ("building", ["building"])
        async with database.write() as session:
            await cancel_job(session, first["job"]["id"])
        await sweeper.sweep()
        assert (await ready.order_sae(sae_files(tmp_path, seed=1))).status_code == 202
        await sweeper.sweep()
        assert await states(database) == ("building", ["abandoned", "building"])

    async def test_an_old_job_cannot_take_over_what_was_published_since(
        self, ready: Researcher, database: Database, database_settings: Any, settings: Any, tmp_path: Path
    ) -> None:
        first = (await ready.order_sae(sae_files(tmp_path))).json()
        async with database.write() as session:
            await cancel_job(session, first["job"]["id"])
        second = (await ready.order_sae(sae_files(tmp_path, seed=1))).json()
        async with ingesting(database_settings, settings):
            assert (await finished(database, second)).state == "succeeded"
            async with database.write() as session:
                await retry_job(session, first["job"]["id"])
            job = await finished(database, first)
        assert (job.state, "published again since" in str(job.error)) == ("failed", True)
        assert await states(database) == ("ready", ["abandoned", "ready"])
        async with database.read() as session:
            assert await session.scalar(select(SAE.current_version_id)) == second["sae"]["version"]


async def states(database: Database) -> tuple[str, list[str]]:
    """States of the one SAE and of its versions."""
    async with database.read() as session:
        sae = await session.scalar(select(SAE.state))
        versions = await session.scalars(select(SAEVersion.state).order_by(SAEVersion.id))
        return str(sae), list(versions)
