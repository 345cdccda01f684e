"""Folders that are full, closed or read-only, as root and as an ordinary user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from interpedia_local import binaries
from interpedia_local.errors import DiskFull, FolderUnreachable, FolderUnwritable, LocalError
from interpedia_local.folders import FolderLock, make_folder, require_space, write_private
from interpedia_local.postgres import LocalPostgres
from interpedia_local.processes import Identity
from interpedia_local.server_user import can_enter, can_run

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount, or another user to be")
NOBODY = Identity(65534, 65534, "nobody")


@pytest.fixture
def small_disk(open_folder: Path) -> Generator[Path]:
    """A disk of 160 MB in memory."""
    disk = open_folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def one_sentence(error: LocalError) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text and text[0].isupper()


@as_root
class TestFullDisk:
    def test_too_little_room_is_said_before_anything_is_made(self, small_disk: Path) -> None:
        (small_disk / "ballast").write_bytes(bytes(100 * 1024 * 1024))
        with pytest.raises(
            DiskFull, match=r"is full: \d+ MB are free and at least 128 MB are needed"
        ) as caught:
            LocalPostgres(small_disk / "postgres", sync=False).start()
        assert one_sentence(caught.value)
        assert not (small_disk / "postgres" / "cluster").exists()

    def test_a_disk_that_fills_up_during_initdb(
        self, small_disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (small_disk / "ballast").write_bytes(bytes(140 * 1024 * 1024))
        monkeypatch.setattr("interpedia_local.postgres.NEW_CLUSTER_MEGABYTES", 1)
        with pytest.raises(DiskFull, match="is full: free some space") as caught:
            LocalPostgres(small_disk / "postgres", sync=False).start()
        assert one_sentence(caught.value)
        assert not (small_disk / "postgres" / "cluster").exists()

    def test_room_made_again_is_enough(self, small_disk: Path) -> None:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(100 * 1024 * 1024))
        server = LocalPostgres(small_disk / "postgres", sync=False, shared_buffers="16MB")
        with pytest.raises(DiskFull):
            server.start()
        ballast.unlink()
        assert server.start().is_answering()
        server.stop()

    def test_a_private_file_is_written_whole_or_not_at_all(self, small_disk: Path) -> None:
        write_private(small_disk / "key", "old")
        with pytest.raises(DiskFull):
            write_private(small_disk / "key", "x" * 200 * 1024 * 1024)
        assert (small_disk / "key").read_text(encoding="utf-8") == "old"
        assert sorted(path.name for path in small_disk.iterdir()) == ["key"]


@as_root
class TestClosedFolder:
    def test_a_parent_that_the_servers_user_cannot_enter(self, open_folder: Path) -> None:
        closed = open_folder / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(FolderUnreachable, match="the user nobody cannot enter") as caught:
            LocalPostgres(closed / "var" / "postgres", sync=False).start()
        assert one_sentence(caught.value)
        assert closed.stat().st_mode & 0o777 == 0o700, (
            "permissions of folders that exist are not ours to change"
        )

    def test_can_enter_asks_as_that_user(self, open_folder: Path) -> None:
        closed = open_folder / "closed"
        closed.mkdir(mode=0o700)
        assert can_enter(open_folder, NOBODY)
        assert not can_enter(closed, NOBODY)
        assert can_enter(closed, None)

    def test_programs_out_of_reach_are_copied_once_and_checked(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = _closed_copy_of_the_wheel(open_folder, monkeypatch)
        copied = binaries.find_programs(NOBODY)
        assert not copied.is_relative_to(site)
        assert can_run(copied / "postgres", NOBODY)
        stamp = (copied / "postgres").stat().st_mtime_ns
        assert binaries.find_programs(NOBODY) == copied
        assert (copied / "postgres").stat().st_mtime_ns == stamp
        server = LocalPostgres(open_folder / "postgres", sync=False, shared_buffers="16MB").start()
        assert server.is_answering()
        server.stop()

    def test_a_copy_that_somebody_changed_is_made_anew(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _closed_copy_of_the_wheel(open_folder, monkeypatch)
        copied = binaries.find_programs(NOBODY)
        (copied / "postgres").write_bytes(b"#!/bin/sh\nexit 0\n")
        assert (binaries.find_programs(NOBODY) / "postgres").stat().st_size > 1_000_000

    def test_a_copy_of_somebody_else_is_not_run(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _closed_copy_of_the_wheel(open_folder, monkeypatch)
        target = binaries.find_programs(NOBODY).parents[2]
        os.chown(target, NOBODY.uid, NOBODY.gid)
        with pytest.raises(FolderUnreachable, match=r"cannot be trusted .*belongs to another user"):
            binaries.find_programs(NOBODY)


class TestLocks:
    def test_one_holder_at_a_time(self, tmp_path: Path) -> None:
        first, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
        first.acquire()
        with pytest.raises(LocalError, match=f"in use by process {os.getpid()}"):
            second.acquire()
        first.release()
        second.acquire()
        second.release()


class TestMaking:
    def test_a_strict_umask_does_not_lock_the_server_out(self, open_folder: Path) -> None:
        before = os.umask(0o077)
        try:
            make_folder(open_folder / "var" / "postgres")
        finally:
            os.umask(before)
        assert (open_folder / "var").stat().st_mode & 0o777 == 0o755

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_parent(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o555)
        with pytest.raises(FolderUnwritable, match="cannot be written: Permission denied"):
            make_folder(tmp_path / "var")

    def test_room_enough_is_no_error(self, tmp_path: Path) -> None:
        require_space(tmp_path, 1)
        with pytest.raises(DiskFull):
            require_space(tmp_path, 10**12)


def _closed_copy_of_the_wheel(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's files as they would be in a virtual environment under a home folder with mode 0700."""
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    real = binaries._site_folder()
    for part in (binaries.SERVER, binaries.LIBRARIES):
        (home / part.parent).mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(real / part), str(home / part)], check=True)
    monkeypatch.setattr(binaries, "_site_folder", lambda: home)
    monkeypatch.setattr(binaries.tempfile, "gettempdir", lambda: str(open_folder))
    return home
