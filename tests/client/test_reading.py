"""Features, jobs, references and the command."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia import BadReference, Client, FeatureRef, Job, JobFailed, NotFound, console
from interpedia.cli import main
from interpedia.server_sent import Message, messages
from tests.client.scripted_server import KEY, Script

PLACE = ["--model", "m", "--name", "n", "--hook", "h", "--corpus", "c"]
IDS = st.text(st.characters(codec="utf-8", exclude_characters="/", categories=("L", "N", "P")), min_size=1)


class TestReferences:
    @pytest.mark.parametrize(
        "text",
        [
            "gpt2-small/6-res-jb/650",
            "https://example.org/gpt2-small/6-res-jb/650",
            "https://example.org/api/feature/gpt2-small/6-res-jb/650?x=1",
            "http://127.0.0.1:8000/v1/models/gpt2-small/saes/6-res-jb/features/650",
            "http://127.0.0.1:8000/v1/models/gpt2-small/saes/6-res-jb/features/650/vector",
            "http://127.0.0.1:8000/models/gpt2-small/saes/6-res-jb/features/650#top",
        ],
    )
    def test_every_spelling(self, text: str) -> None:
        assert FeatureRef.parse(text) == FeatureRef("gpt2-small", "6-res-jb", 650)

    @pytest.mark.parametrize(
        "text", ["", "650", "m/650", "m/s/-1", "m/s/x", "m/s/1/2", "https://example.org/m/650", "m /s/1"]
    )
    def test_what_names_nothing(self, text: str) -> None:
        with pytest.raises(BadReference):
            FeatureRef.parse(text)

    @pytest.mark.parametrize("parts", [("", "s", 1), ("m", "", 1), ("m", "s", -1), ("m/x", "s", 1)])
    def test_what_can_be_no_feature(self, parts: tuple[str, str, int]) -> None:
        with pytest.raises(BadReference):
            FeatureRef(*parts)

    @given(model=IDS, sae=IDS, index=st.integers(0, 2**31))
    def test_text_and_url_come_back(self, model: str, sae: str, index: int) -> None:
        ref = FeatureRef(model, sae, index)
        assert FeatureRef.parse(str(ref)) == ref
        assert FeatureRef.parse(f"http://host{ref.path}") == ref


class TestFeatures:
    def test_a_dashboard_keeps_fields_unknown_to_us(self, client: Client) -> None:
        feature = client.features.get("m/s/3")
        assert feature.reference == FeatureRef("m", "s", 3)
        assert feature.to_dict()["density"] == 0.25

    def test_an_index_out_of_range(self, client: Client) -> None:
        with pytest.raises(NotFound, match=r"outside 0\.\.4"):
            client.features.get("m/s/5")

    def test_a_list_is_fetched_page_by_page(self, client: Client, script: Script) -> None:
        features = client.features.list("m", "s", sort="density", alive=True, page_size=2)
        assert next(features).index == 0
        assert len(script.seen) == 1, "nothing is fetched ahead"
        assert [feature.index for feature in features] == [1, 2, 3, 4]
        assert [request.query.get("cursor") for request in script.seen] == [None, "2", "4"]
        assert {request.query["sort"] for request in script.seen} == {"density"}
        assert script.seen[0].query["alive"] == "true"

    def test_a_limit_is_the_number_of_features(self, client: Client, script: Script) -> None:
        assert [feature.index for feature in client.features.list("m", "s", limit=3, page_size=2)] == [
            0,
            1,
            2,
        ]
        assert len(script.seen) == 2


class TestJobs:
    def test_waiting_follows_the_events_over_broken_streams(self, client: Client, script: Script) -> None:
        client.models.register({"id": "m"})
        (job_id,) = script.jobs
        shown: list[Job] = []
        job = client.jobs.wait(job_id, progress=shown.append)
        assert job.state == "succeeded"
        assert shown[0].state == "queued"
        assert shown[-1].fraction == 1.0
        after = [
            request.headers.get("last-event-id") for request in script.of("GET", f"/v1/jobs/{job_id}/events")
        ]
        assert after[:3] == [None, "1", "2"], "each stream goes on after the last event seen"

    def test_a_failed_job_raises_with_its_reason(self, client: Client, script: Script) -> None:
        script.job_ends = "failed"
        client.models.register({"id": "m"})
        (job_id,) = script.jobs
        with pytest.raises(JobFailed, match="failed: the last task died"):
            client.jobs.wait(job_id)

    def test_an_unknown_job(self, client: Client) -> None:
        with pytest.raises(NotFound):
            client.jobs.wait("00000000-0000-0000-0000-000000000000")


class TestEventStream:
    def test_messages(self) -> None:
        lines = [
            ": comment", "", "id: 7", "event: stage", "data: a", "data:b", "",
            "retry: 5", "", "data: c", "", "data: cut",
        ]  # fmt: skip
        assert list(messages(lines)) == [Message("a\nb", "stage", "7"), Message("c", "message", "7")]


class TestCommand:
    @pytest.fixture(autouse=True)
    def _environment(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INTERPEDIA_URL", url)
        monkeypatch.setenv("INTERPEDIA_API_KEY", KEY)

    def test_feature(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["feature", "m/s/1"]) == 0
        assert json.loads(capsys.readouterr().out)["ref"] == "m/s/1"

    def test_publish_then_jobs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "cfg.json").write_text("{}", encoding="utf-8")
        (tmp_path / "w.safetensors").write_bytes(b"x")
        assert main(["publish", str(tmp_path), *PLACE]) == 0
        assert "/v1/models/m/saes/n/features" in capsys.readouterr().out
        assert main(["jobs"]) == 0
        assert "succeeded  100%  build_dashboards" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["feature", "m/s/9"], "outside 0..4"),
            (["feature", "nonsense"], "does not name a feature"),
            (["--api-key", "bad", "publish", "FOLDER", *PLACE], "give a key with --api-key"),
            (["--url", "http://127.0.0.1:9", "jobs"], "Nobody answers"),
        ],
    )  # fmt: skip
    def test_errors_are_one_sentence(
        self,
        arguments: list[str],
        words: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "cfg.json").write_text("{}", encoding="utf-8")
        (tmp_path / "w.safetensors").write_bytes(b"x")
        assert main([str(tmp_path) if word == "FOLDER" else word for word in arguments]) == 1
        said = capsys.readouterr()
        assert words in said.err
        assert said.err.count("\n") == 1


class TestProgressLine:
    def test_without_a_terminal_lines_are_few_and_plain(self) -> None:
        now = [0.0]
        stream = io.StringIO()
        line = console.ProgressLine("Building", stream=stream, clock=lambda: now[0])
        for second in range(21):
            now[0] = float(second)
            line.update(second * 10, 200, note="shard", unit="contexts")
        line.finish("done")
        lines = stream.getvalue().splitlines()
        assert lines[0] == "Building:   0%  shard"
        assert lines[1] == "Building:  25%  shard  10 contexts/s  15 s left"
        assert lines[-2:] == ["Building: 100%  shard  10 contexts/s", "Building: done"]
        assert len(lines) == 6
        assert "\r" not in stream.getvalue()

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert console.duration(seconds) == text
