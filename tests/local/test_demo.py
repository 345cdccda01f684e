"""The demo against a server that speaks the public API: first run, second run, half-done runs."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from interpedia import Client, JobFailed, RetryPolicy, Unauthorized
from interpedia_local.demo import CORPUS, MODEL, SAES, Demo
from interpedia_local.errors import DemoFailed
from tests.client.scripted_server import KEY, Script, Stage


@pytest.fixture
def script() -> Script:
    return Script(job_steps=1)


@pytest.fixture
def url(stage: Stage, script: Script) -> Generator[str]:
    with stage.playing(script) as url:
        yield url


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    (tmp_path / "demo_corpus.jsonl.xz").write_bytes(b"corpus")
    for name in SAES:
        folder = tmp_path / "saes" / name
        folder.mkdir(parents=True)
        hook = f"blocks.{name.split('-')[0]}.hook_resid_post"
        (folder / "cfg.json").write_text(json.dumps({"metadata": {"hook_name": hook}}), encoding="utf-8")
        (folder / "sae_weights.safetensors").write_bytes(name.encode())
    return tmp_path


@pytest.fixture
def demo(url: str, examples: Path) -> Generator[Demo]:
    with Client(url, KEY, retry=RetryPolicy(attempts=2, first_pause=0.01)) as client:
        yield Demo(client, examples, tokens=1280)


def posts(script: Script) -> list[str]:
    return [request.path for request in script.seen if request.method == "POST"]


def test_a_first_run_publishes_everything(
    demo: Demo, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.publish()
    assert (set(script.models), set(script.corpora), set(script.saes)) == ({MODEL}, {CORPUS}, set(SAES))
    (request,) = script.of("POST", "/v1/saes")
    body = json.loads(request.body)
    assert [entry["hook"] for entry in body["saes"]] == [
        "blocks.7.hook_resid_post", "blocks.15.hook_resid_post", "blocks.23.hook_resid_post",
    ]  # fmt: skip
    assert (body["model"], body["corpus"], body["n_tokens"]) == (MODEL, CORPUS, 1280)
    said = capsys.readouterr().out
    base = demo.client.base_url
    assert f"{base}/docs" in said
    assert (
        f"{base}/v1/models/{MODEL}/saes/15-res-3k/features?limit=5&min_density=0.001&max_density=0.01" in said
    )
    assert f"{base}/v1/models/{MODEL}/saes/15-res-3k/features/0" in said


def test_a_second_run_writes_nothing(demo: Demo, script: Script) -> None:
    demo.publish()
    script.seen.clear()
    demo.publish()
    assert posts(script) == []


def test_a_build_that_is_under_way_is_followed(demo: Demo, script: Script) -> None:
    demo.publish()
    (job_id,) = (job["id"] for job in script.jobs.values() if job["kind"] == "build_dashboards")
    _unfinish(script, job_id, "running")
    script.seen.clear()
    demo.publish()
    assert posts(script) == []
    assert script.jobs[job_id]["state"] == "succeeded"


def test_a_build_that_failed_is_tried_again(demo: Demo, script: Script) -> None:
    demo.publish()
    (job_id,) = (job["id"] for job in script.jobs.values() if job["kind"] == "build_dashboards")
    _unfinish(script, job_id, "failed")
    script.seen.clear()
    demo.publish()
    assert posts(script) == [f"/v1/jobs/{job_id}/retry"]


def test_only_missing_saes_are_published(demo: Demo, script: Script) -> None:
    demo.publish()
    del script.saes["7-res-3k"]
    script.seen.clear()
    demo.publish()
    (request,) = script.of("POST", "/v1/saes")
    assert [entry["name"] for entry in json.loads(request.body)["saes"]] == ["7-res-3k"]


def test_an_earlier_smaller_build_is_mentioned(
    demo: Demo, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.publish()
    script.saes["7-res-3k"]["versions"] = [{"n_contexts": 5}]
    demo.publish()
    assert "The dashboards of 7-res-3k are from an earlier run, of 640 tokens" in capsys.readouterr().out


def test_a_failing_job_is_said(demo: Demo, script: Script) -> None:
    script.job_ends = "failed"
    with pytest.raises(JobFailed, match="the last task died"):
        demo.publish()


def test_a_wrong_key_is_said(url: str, examples: Path) -> None:
    with Client(url, "wrong") as client, pytest.raises(Unauthorized):
        Demo(client, examples, tokens=1280).publish()


def test_missing_files_are_said(demo: Demo, examples: Path) -> None:
    (examples / "demo_corpus.jsonl.xz").unlink()
    with pytest.raises(DemoFailed, match=r"demo_corpus\.jsonl\.xz is missing"):
        demo.publish()


def _unfinish(script: Script, job_id: str, state: str) -> None:
    """As if the first run had been stopped during the build."""
    job = script.jobs[job_id]
    job |= {"state": state, "done": 0}
    reference = {key: job[key] for key in ("id", "state", "done", "total")}
    for sae in script.saes.values():
        sae |= {"version": None, "job": reference}
    ready = {name: {**sae, "version": 1} for name, sae in script.saes.items()}
    script.on_job_end[job_id] = {"saes": ready}
