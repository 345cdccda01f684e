"""The whole platform as `make run` starts it: real processes, the public API, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interpedia import Client, InterpediaError, NotFound, Unauthorized
from interpedia_engine.hooks import ModelShape, parse_hook
from interpedia_engine.models import ModelSource, load_model
from interpedia_engine.saes import tiny_sae
from tests.local.processes_seen import processes_of, wait_for

pytestmark = pytest.mark.slow
SERVICES = ("gateway", "inference", "autointerp", "ingest")
MODEL = {"id": "tiny", "name": "Tiny", "source": {"kind": "tiny"}}
DOCUMENT = "The first time it rained, the river rose and the old bridge could not be crossed. "


@dataclass(frozen=True)
class Platform:
    """A running platform."""

    url: str
    key: str
    folder: Path
    process: subprocess.Popen[bytes]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def platform(open_folder: Path) -> Generator[Platform]:
    ports = dict(zip(SERVICES, _free_ports(len(SERVICES)), strict=True))
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    command = [sys.executable, "-m", "interpedia_local", "run", "--no-demo", "--data-dir", str(open_folder)]
    with (open_folder / "launcher.out").open("wb") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while b"Ctrl-C stops" not in (open_folder / "launcher.out").read_bytes():
            assert process.poll() is None, (open_folder / "launcher.out").read_text()
            assert time.monotonic() < deadline, (open_folder / "launcher.out").read_text()
            time.sleep(0.2)
        key = (open_folder / "owner.key").read_text().strip()
        yield Platform(f"http://127.0.0.1:{ports['gateway']}", key, open_folder, process)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (0, 130)
    assert processes_of(open_folder) == []


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
    client.jobs.wait(client.models.register(MODEL).job.id)
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
        stranger.models.register(MODEL)
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

        def registered() -> bool:
            try:
                accepted = client.models.register(MODEL)
                if accepted.job is not None:
                    client.jobs.wait(accepted.job.id)
                return client.models.get("tiny").id == "tiny"
            except InterpediaError:
                return False

        wait_for(registered, "a model registered after the kill", seconds=180)
    assert gateway not in processes_of(platform.folder)
