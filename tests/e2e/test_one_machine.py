"""The whole platform as `make run` starts it: real processes, the public API, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from interpedia import Client, InterpediaError, NotFound, Unauthorized
from interpedia_engine.hooks import ModelShape, parse_hook
from interpedia_engine.models import ModelSource, load_model
from interpedia_engine.saes import tiny_sae
from tests.local.processes_seen import processes_of, wait_for
from tests.support.folders import passing_folder
from tests.support.ports import unused_port

pytestmark = pytest.mark.slow
SERVICES = ("gateway", "inference", "autointerp", "ingest")
PATIENCE_S = 300
DOCUMENT = "The first time it rained, the river rose and the old bridge could not be crossed. "


@dataclass(frozen=True)
class Platform:
    """A running platform."""

    url: str
    key: str
    folder: Path
    process: subprocess.Popen[bytes]

    def said(self) -> str:
        """What the launcher wrote, for a failure's message."""
        return (self.folder / "launcher.out").read_text()


@pytest.fixture(scope="module")
def platform() -> Generator[Platform]:
    """One platform for all tests, as starting it takes longer than they do; each has a model of its own."""
    with passing_folder() as folder:
        yield from _running(folder)


def _running(open_folder: Path) -> Generator[Platform]:
    ports = {name: unused_port() for name in SERVICES}
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    command = [sys.executable, "-m", "interpedia_local", "run", "--no-demo", "--data-dir", str(open_folder)]
    with (open_folder / "launcher.out").open("wb") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE_S
        starting = Platform(f"http://127.0.0.1:{ports['gateway']}", "", open_folder, process)
        while "Ctrl-C stops" not in starting.said():
            assert process.poll() is None, starting.said()
            assert time.monotonic() < deadline, starting.said()
            time.sleep(0.2)
        yield replace(starting, key=(open_folder / "owner.key").read_text().strip())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) in (0, 130)
    assert processes_of(open_folder) == []


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "name": name.title(), "source": {"kind": "tiny"}}


def _write_corpus(path: Path, documents: int) -> Path:
    lines = [
        json.dumps(
            {"id": f"d{n}", "source": "test", "licence": "CC0", "text": DOCUMENT * 12 + f"Number {n}. " * 9}
        )
        for n in range(documents)
    ]
    path.write_text("\n".join(lines))
    return path


def _shape(folder: Path) -> ModelShape:
    return load_model(ModelSource(kind="tiny"), cache_dir=folder).shape


def _publish(client: Client, folder: Path) -> None:
    client.jobs.wait(client.models.register(_model("tiny")).job.id)
    upload = client.uploads.send([_write_corpus(folder / "corpus.jsonl", 12)], "corpus")
    accepted = client.corpora.register(
        {
            "id": "text",
            "name": "Text",
            "upload": upload.id,
            "model": "tiny",
            "context_length": 128,
            "prepend_bos": True,
        }
    )
    client.jobs.wait(accepted.job.id)
    shape = _shape(folder)
    hook = parse_hook("blocks.1.hook_resid_post", shape)
    tiny_sae(folder / "sae", shape=shape, hook=hook, d_sae=64)
    publication = client.publish(folder / "sae", model="tiny", name="1-res-64", hook=hook.name, corpus="text")
    client.jobs.wait(publication.job.id)


def test_a_researcher_publishes_and_reads(platform: Platform, tmp_path: Path) -> None:
    with Client(platform.url, "ip_00000000_wrong") as stranger, pytest.raises(Unauthorized):
        stranger.models.register(_model("tiny"))
    with Client(platform.url, platform.key) as client:
        _publish(client, tmp_path)
    with Client(platform.url) as reader:
        features = list(reader.features.list("tiny", "1-res-64", sort="density", order="desc", page_size=10))
        assert len(features) == 64
        densities = [feature.density for feature in features]
        assert densities == sorted(densities, reverse=True)
        dashboard = reader.features.get(str(features[0].ref)).to_dict()
        assert dashboard["examples"][0]["max_activation"] == pytest.approx(
            dashboard["max_activation"], rel=2**-10
        )
        assert dashboard["provenance"]["corpus"]["id"] == "text"
        with pytest.raises(NotFound, match=r"0\.\.63"):
            reader.features.get("tiny/1-res-64/64")


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_everything_is_back_after_a_kill(platform: Platform) -> None:
    """Killing the gateway and the database with SIGKILL: the launcher brings both back."""
    commands = {pid: _command(pid) for pid in processes_of(platform.folder)}
    gateway = next(pid for pid, command in commands.items() if "interpedia_gateway" in command)
    database = next(pid for pid, command in commands.items() if "bin/postgres " in command)
    with Client(platform.url, platform.key) as client:
        for victim in (gateway, database):
            os.kill(victim, signal.SIGKILL)

        answers: list[str] = []

        def registered() -> bool:
            assert platform.process.poll() is None, platform.said()
            try:
                accepted = client.models.register(_model("again"))
                if accepted.job is not None:
                    client.jobs.wait(accepted.job.id)
                return client.models.get("again").id == "again"
            except InterpediaError as error:
                answers.append(repr(error))
                return False

        try:
            wait_for(registered, "a model registered after the kill", seconds=PATIENCE_S)
        except AssertionError as error:
            error.add_note(f"The last answers: {answers[-3:]}. The launcher said: {platform.said()}")
            raise
    assert gateway not in processes_of(platform.folder)
