"""Whole builds with a worker in this process: what becomes readable, when, and how it compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from sqlalchemy import func, select, text

from interpedia_engine.capture import capture
from interpedia_engine.hooks import parse_hook
from interpedia_engine.models import ModelSource, load_model
from interpedia_engine.saes import load_sae
from interpedia_ingest.app import create_app
from interpedia_ingest.build.plan import PlannedSAE, feature_ranges, plan_tasks
from interpedia_ingest.build.sweep import Sweeper
from interpedia_ingest.dashboards.selection import select_contexts
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.worker import make_handlers
from interpedia_shared.dashboards import decode_examples, decode_stats
from interpedia_shared.db.models import SAE, Context, Feature, SAEVersion
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import TaskContext, TaskFailed, cancel_job, retry_job
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.tokens import unpack_ids
from tests.ingest.ingest_support import HOOK, Researcher, finished, ingesting, sae_files
from tests.support.jobs import working

KEEPS_LIBRARY = True


async def digests(database: Database) -> dict[str, str | None]:
    """Digest of each SAE's current version."""
    async with database.read() as session:
        rows = await session.execute(
            select(SAE.slug, SAEVersion.digest).join(SAEVersion, SAEVersion.id == SAE.current_version_id)
        )
        return dict(rows.all())


def spills(settings: IngestSettings) -> list[Path]:
    return list(DataFolder(settings).spills.rglob("*.spill"))


async def order_several(researcher: Researcher, folder: Path) -> dict[str, Any]:
    """Three SAEs at two hooks and a dictionary of neurons, in one job."""
    standard = await researcher.upload("sae", sae_files(folder, architecture="standard", d_sae=200))
    topk = await researcher.upload("sae", sae_files(folder, seed=1))
    jumprelu = await researcher.upload(
        "sae", sae_files(folder, hook="blocks.1.hook_resid_post", architecture="jumprelu", seed=2)
    )
    transcoder = await researcher.upload(
        "sae", sae_files(folder, hook="blocks.1.mlp.hook_in", architecture="transcoder", seed=3)
    )
    body = {
        "model": "tiny",
        "corpus": "words",
        "n_tokens": 1_800,
        "saes": [
            {"name": "standard", "hook": HOOK, "upload": standard},
            {"name": "topk", "hook": HOOK, "upload": topk},
            {"name": "jumprelu", "hook": "blocks.1.hook_resid_post", "upload": jumprelu},
            {"name": "transcoder", "hook": "blocks.1.mlp.hook_in", "upload": transcoder},
            {"name": "neurons", "hook": "blocks.0.mlp.hook_post", "architecture": "identity"},
        ],
    }
    answer = await researcher.post("/v1/saes", body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_tasks_cover_all_rows_and_features(settings: IngestSettings) -> None:
    tasks = plan_tasks([PlannedSAE(1, 300), PlannedSAE(2, 96)], n_contexts=70, settings=settings)
    shards = [task.params for task in tasks if task.kind == "shard"]
    assert [(one["first"], one["stop"]) for one in shards] == [(0, 32), (32, 64), (64, 70)]
    reductions = [task.params for task in tasks if task.kind == "reduce"]
    assert [(one["version"], one["first"], one["stop"]) for one in reductions] == [
        (1, 0, 128),
        (1, 128, 256),
        (1, 256, 300),
        (2, 0, 96),
    ]
    assert [task.params for task in tasks if task.kind == "publish"] == [{"version": 1}, {"version": 2}]
    assert [len(part) for part in feature_ranges(1_000, 129)] == [256, 256, 256, 232]


class TestWholeBuild:
    async def test_all_architectures_in_one_job(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        accepted = await order_several(ready, tmp_path)
        async with ingesting(database_settings, settings):
            job = await finished(database, accepted)
        assert job.state == "succeeded", job.error
        assert job.done == job.total
        found = await digests(database)
        assert set(found) == {"standard", "topk", "jumprelu", "transcoder", "neurons"}
        assert job.result is not None
        assert {name: job.result[name]["digest"] for name in found} == found
        async with database.read() as session:
            versions = list(await session.scalars(select(SAEVersion).order_by(SAEVersion.id)))
            rows = await session.execute(
                select(Feature.sae_version_id, func.count()).group_by(Feature.sae_version_id)
            )
            counts = dict(rows.all())
        assert [counts[version.id] for version in versions] == [200, 96, 96, 96, 160]
        for version in versions:
            assert (version.state, version.n_contexts) == ("ready", 57)
            assert version.published_at is not None
            assert version.summary is not None
            assert version.n_tokens == version.summary["n_tokens"] == 57 * 31
            assert version.provenance["computed_with"]["threads"] == 1
            assert version.provenance["selection_digest"]
        assert spills(settings) == []

    async def test_the_numbers_are_those_of_the_engine(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        files = sae_files(tmp_path)
        accepted = (await ready.order_sae(files, n_tokens=1_200)).json()
        async with ingesting(database_settings, settings):
            assert (await finished(database, accepted)).state == "succeeded"
        async with database.read() as session:
            contexts = list(await session.scalars(select(Context).order_by(Context.idx)))
            rows = list(await session.scalars(select(Feature).order_by(Feature.idx)))
        chosen = select_contexts(n_contexts=len(contexts), n_tokens=1_200, context_length=32, seed=0)
        tokens = np.stack([unpack_ids(contexts[k].tokens, 2) for k in chosen])
        model = load_model(ModelSource(kind="tiny"), cache_dir=tmp_path)
        (tmp_path / "sae").mkdir()
        for name, data in files.items():
            (tmp_path / "sae" / name).write_bytes(data)
        hook = parse_hook(HOOK, model.shape)
        x = capture(model, torch.from_numpy(tokens.astype(np.int64)), [hook])[hook]
        codes = load_sae(tmp_path / "sae").encode(x)[:, 1:].numpy()  # without BOS
        assert [row.n_active_tokens for row in rows] == (codes != 0).sum((0, 1)).tolist()
        assert [row.density for row in rows] == pytest.approx((codes != 0).mean((0, 1)).tolist())
        assert [row.max_activation for row in rows] == pytest.approx(codes.max((0, 1)).tolist(), rel=1e-5)
        for row in rows:
            stats, examples = decode_stats(row.stats), decode_examples(row.examples)
            assert stats.n_active_tokens == row.n_active_tokens
            assert set(examples.contexts.tolist()) <= set(chosen.tolist())
            if row.n_active_tokens:
                peak = codes[:, :, row.idx].max(1).argmax()
                assert row.peak_context == chosen[peak]
            assert len(stats.top_logits.ids) == 10

    async def test_sharding_changes_no_byte(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        files = sae_files(tmp_path, d_sae=200)
        accepted = (await ready.order_sae(files, name="cut", n_tokens=3_000)).json()
        async with ingesting(database_settings, settings):
            assert (await finished(database, accepted)).state == "succeeded"
        upload = await ready.upload("sae", files)
        async with database.write() as session:
            # The same order with tasks of another size, as another installation would plan it.
            await session.execute(text("DELETE FROM idempotency_key"))
        large = settings.model_copy(update={"rows_per_shard": 1_000, "features_per_task": 1_000})
        whole = create_app(large, database_settings)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(whole), base_url="http://x") as http:
            other = Researcher(http, ready.headers["Authorization"].removeprefix("Bearer "))
            body = {"model": "tiny", "corpus": "words", "name": "whole", "hook": HOOK, "upload": upload}
            accepted = (await other.post("/v1/saes", body | {"n_tokens": 3_000})).json()
        await whole.state.database.dispose()
        assert accepted["job"]["tasks"]["queued"] == 1
        async with ingesting(database_settings, settings):
            assert (await finished(database, accepted)).state == "succeeded"
        found = await digests(database)
        assert found["cut"] == found["whole"]


class TestVersions:
    async def test_the_old_one_is_read_until_the_new_one_is_whole(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        files = sae_files(tmp_path)
        accepted = (await ready.order_sae(files, n_tokens=1_000)).json()
        async with ingesting(database_settings, settings):
            assert (await finished(database, accepted)).state == "succeeded"
        first = accepted["sae"]["version"]
        second = (await ready.order_sae(files, n_tokens=2_000)).json()
        assert (second["sae"]["state"], second["sae"]["version"] > first) == ("ready", True)
        handlers = dict(make_handlers(settings))
        publish, seen = handlers["publish"], []

        async def watched(context: TaskContext) -> Any:
            seen.append(await readable(database))
            result = await publish(context)
            seen.append(await readable(database))
            return result

        handlers["publish"] = watched
        async with working(database_settings, handlers):
            assert (await finished(database, second)).state == "succeeded"
        assert seen == [(first, 96), (second["sae"]["version"], 96)]
        async with database.read() as session:
            old = await session.get(SAEVersion, first)
            rows = await session.scalar(select(func.count()).where(Feature.sae_version_id == first))
        assert old is not None
        assert (old.state, rows) == ("ready", 96)
        other = await ready.order_sae(sae_files(tmp_path, seed=5))
        assert (other.status_code, "another name" in other.json()["detail"]) == (409, True)

    async def test_a_task_that_always_crashes_ends_dead_and_the_sae_failed(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        accepted = (await ready.order_sae(sae_files(tmp_path, d_sae=300), n_tokens=2_000)).json()
        handlers = dict(make_handlers(settings))
        reduce = handlers["reduce"]

        async def crashing(context: TaskContext) -> Any:
            if context.ordinal == 1:
                raise MemoryError("secret details")
            return await reduce(context)

        handlers["reduce"] = crashing
        async with working(database_settings, handlers):
            job = await finished(database, accepted)
        assert (job.state, job.tasks.dead, job.tasks.done) == ("failed", 1, 4)
        assert job.error is not None
        assert "MemoryError" in job.error["detail"]
        assert "secret" not in json.dumps(job.error)
        sweeper = Sweeper(database, DataFolder(settings), settings)
        await sweeper.sweep()
        assert await sae_state(database) == ("failed", "failed")
        assert spills(settings) != []
        assert (await ready.http.get("/livez")).status_code == 200
        # Once nobody will retry it, nothing of it is left.
        await Sweeper(
            database, DataFolder(settings), settings.model_copy(update={"keep_failed_builds_s": 0})
        ).sweep()
        assert await sae_state(database) == ("failed", "abandoned")
        assert spills(settings) == []
        async with database.read() as session:
            assert await session.scalar(select(func.count()).select_from(Feature)) == 0
        context = TaskContext(
            job_id=job.id,
            task_id=0,
            ordinal=0,
            params={"versions": [accepted["sae"]["version"]], "first": 0, "stop": 32},
            job_params={},
            database=database,
        )
        with pytest.raises(TaskFailed, match="given up and swept"):
            await make_handlers(settings)["shard"](context)

    async def test_a_retry_goes_on_where_it_stopped(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        accepted = (await ready.order_sae(sae_files(tmp_path), n_tokens=2_000)).json()
        handlers = dict(make_handlers(settings))

        async def refusing(context: TaskContext) -> Any:
            raise TaskFailed("not today")

        async with working(database_settings, handlers | {"publish": refusing}):
            assert (await finished(database, accepted)).state == "failed"
        await Sweeper(database, DataFolder(settings), settings).sweep()
        async with database.write() as session:
            await retry_job(session, accepted["job"]["id"])
        async with working(database_settings, {"publish": handlers["publish"]}):
            assert (await finished(database, accepted)).state == "succeeded"
        assert await sae_state(database) == ("ready", "ready")

    async def test_cancelling_stops_within_a_task(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        accepted = (await ready.order_sae(sae_files(tmp_path))).json()
        handlers = dict(make_handlers(settings))
        shard = handlers["shard"]

        async def cancelling(context: TaskContext) -> Any:
            async with database.write() as session:
                await cancel_job(session, context.job_id)
            while True:
                await shard(context)
                for path in spills(settings):
                    path.unlink()

        async with working(database_settings, handlers | {"shard": cancelling}):
            assert (await finished(database, accepted)).state == "cancelled"
        await Sweeper(database, DataFolder(settings), settings).sweep()
        assert await sae_state(database) == ("failed", "failed")


class TestSpills:
    @pytest.mark.parametrize("stage", ["reduce", "publish"])
    async def test_lost_and_damaged_spills_are_written_again(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
        stage: str,
    ) -> None:
        files = sae_files(tmp_path)
        accepted = (await ready.order_sae(files, name="undisturbed", n_tokens=3_000)).json()
        async with ingesting(database_settings, settings):
            assert (await finished(database, accepted)).state == "succeeded"
        accepted = (await ready.order_sae(files, name="disturbed", n_tokens=3_000)).json()
        handlers = dict(make_handlers(settings))
        handler, damaged = handlers[stage], []

        async def losing(context: TaskContext) -> Any:
            if not damaged:
                first, second, *_ = sorted(spills(settings))
                first.unlink()
                data = bytearray(second.read_bytes())
                data[-100] ^= 1
                second.write_bytes(data)
                damaged.append(second)
            return await handler(context)

        async with working(database_settings, handlers | {stage: losing}):
            job = await finished(database, accepted)
        assert job.state == "succeeded", job.error
        found = await digests(database)
        assert damaged
        assert found["undisturbed"] == found["disturbed"]

    async def test_whole_spills_of_an_earlier_attempt_are_kept(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
        tmp_path: Path,
    ) -> None:
        accepted = (await ready.order_sae(sae_files(tmp_path), n_tokens=1_000)).json()
        handlers = dict(make_handlers(settings))
        shard, times = handlers["shard"], []

        async def twice(context: TaskContext) -> Any:
            await shard(context)
            (path,) = spills(settings)
            times.append(path.stat().st_mtime_ns)
            await shard(context)
            times.append(path.stat().st_mtime_ns)

        async with working(database_settings, handlers | {"shard": twice}):
            assert (await finished(database, accepted)).state == "succeeded"
        assert times[0] == times[1]


async def readable(database: Database) -> tuple[int, int]:
    """What a reader sees: the current version and how many features it has."""
    async with database.read() as session:
        version = await session.scalar(select(SAE.current_version_id))
        rows = await session.scalar(select(func.count()).where(Feature.sae_version_id == version))
        return int(version or 0), int(rows or 0)


async def sae_state(database: Database) -> tuple[str, str]:
    """States of the one SAE and its newest version."""
    async with database.read() as session:
        sae = await session.scalar(select(SAE.state))
        version = await session.scalar(select(SAEVersion.state).order_by(SAEVersion.id.desc()).limit(1))
        return str(sae), str(version)
