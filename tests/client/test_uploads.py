"""Uploads over real sockets: in parts, continued, damaged and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from interpedia import Client, FileProblem, Invalid, UploadInterrupted
from interpedia.uploads import Sent
from tests.client.scripted_server import PART_BYTES, Script


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """4 parts: one of `cfg.json`, three of the weights."""
    config, weights = tmp_path / "cfg.json", tmp_path / "w.safetensors"
    config.write_bytes(b"{}")
    weights.write_bytes(bytes(range(256)) * 10)
    return [config, weights]


def stored(script: Script, upload_id: str, path: Path) -> bytes:
    return bytes(script.stored[upload_id, path.name])


def test_files_arrive_whole(client: Client, script: Script, files: list[Path]) -> None:
    shown: list[Sent] = []
    upload = client.uploads.send(files, "sae", progress=shown.append)
    assert upload.state == "complete"
    assert all(stored(script, upload.id, path) == path.read_bytes() for path in files)
    assert [sent.done for sent in shown] == [2, 2 + PART_BYTES, 2 + 2 * PART_BYTES, 2562]
    assert {sent.total for sent in shown} == {2562}


def test_only_missing_parts_are_sent_again(client: Client, script: Script, files: list[Path]) -> None:
    script.lost_parts.add(3)
    with pytest.raises(UploadInterrupted) as caught:
        client.uploads.send(files, "sae")
    script.lost_parts.clear()
    script.seen.clear()
    shown: list[Sent] = []
    upload = client.uploads.send(files, "sae", resume=caught.value.upload_id, progress=shown.append)
    assert upload.id == caught.value.upload_id
    assert [request.path.rsplit("/", 1)[1] for request in script.of("PUT", "/v1/uploads")] == ["3", "4"]
    assert stored(script, upload.id, files[1]) == files[1].read_bytes()
    assert shown[0].done == 2 + PART_BYTES, "what the server has counts from the start"


def test_a_part_that_arrives_damaged_is_sent_again(client: Client, script: Script, files: list[Path]) -> None:
    script.damaged_once.add(2)
    upload = client.uploads.send(files, "sae")
    assert stored(script, upload.id, files[1]) == files[1].read_bytes()
    assert len(script.of("PUT", "/v1/uploads")) == 5


def test_a_complete_upload_is_not_sent_again(client: Client, script: Script, files: list[Path]) -> None:
    upload = client.uploads.send(files, "sae")
    script.seen.clear()
    assert client.uploads.send(files, "sae", resume=upload.id).state == "complete"
    assert not script.of("PUT", "/v1/uploads")


def test_another_file_under_the_same_upload_is_refused(
    client: Client, script: Script, files: list[Path], tmp_path: Path
) -> None:
    script.lost_parts.add(3)
    with pytest.raises(UploadInterrupted) as caught:
        client.uploads.send(files, "sae")
    script.lost_parts.clear()
    files[1].write_bytes(bytes(2560))
    with pytest.raises(Invalid, match=r"w\.safetensors is not what was announced"):
        client.uploads.send(files, "sae", resume=caught.value.upload_id)
    (tmp_path / "other.json").write_bytes(b"{}")
    with pytest.raises(FileProblem, match=r"expects w\.safetensors"):
        client.uploads.send([files[0], tmp_path / "other.json"], "sae", resume=caught.value.upload_id)


def test_a_file_that_shrinks_is_noticed(client: Client, script: Script, files: list[Path]) -> None:
    script.lost_parts.add(4)
    with pytest.raises(UploadInterrupted) as caught:
        client.uploads.send(files, "sae")
    script.lost_parts.clear()
    files[1].write_bytes(b"short")
    with pytest.raises(FileProblem, match="holds fewer bytes than when the upload began"):
        client.uploads.send(files, "sae", resume=caught.value.upload_id)


def test_missing_and_doubled_files(client: Client, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="cannot be read: No such file"):
        client.uploads.send([tmp_path / "absent"], "sae")
    with pytest.raises(FileProblem, match=r"Two of the files are called cfg\.json"):
        client.uploads.send([files[0], files[0]], "sae")
    with pytest.raises(FileProblem, match="no file to send"):
        client.uploads.send([], "sae")


def test_publishing_a_folder(client: Client, script: Script, files: list[Path]) -> None:
    publication = client.publish(
        files[0].parent, model="m", name="15-res", hook="h", corpus="demo", n_tokens=9
    )
    assert [sae.sae for sae in publication.saes] == ["15-res"]
    body = script.of("POST", "/v1/saes")[0].body.decode()
    (upload_id,) = script.uploads
    assert upload_id in body
    assert '"n_tokens":9' in body
    assert client.jobs.wait(publication.job.id).state == "succeeded"


@pytest.mark.parametrize(("gone", "words"), [("cfg.json", "no cfg.json"), ("w.safetensors", "other formats")])
def test_a_folder_without_an_sae(client: Client, files: list[Path], gone: str, words: str) -> None:
    (files[0].parent / gone).unlink()
    with pytest.raises(FileProblem, match=words):
        client.publish(files[0].parent, model="m", name="n", hook="h", corpus="c")
