"""A Postgres of the benchmark's own, with the migrated schema."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.__main__ import upgrade
from interpedia_shared.settings import DatabaseSettings

LOG = logging.getLogger("bench")


@contextmanager
def server(folder: Path, *, keep: bool = False) -> Generator[LocalPostgres]:
    """A server with the settings of `make run`; its folder is emptied before, and after unless `keep`."""
    shutil.rmtree(folder, ignore_errors=True)
    postgres = LocalPostgres(folder)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def migrated(postgres: LocalPostgres, name: str) -> str:
    """Make a database with the whole schema and return its URL."""
    url = postgres.create_database(name)
    upgrade(DatabaseSettings(url=SecretStr(url)))
    return url


def server_cpu_s(postgres: LocalPostgres) -> float:
    """CPU seconds of the server and of its backends that have ended."""
    fields = Path(f"/proc/{postgres.pid}/stat").read_text().rsplit(")", 1)[1].split()
    # utime, stime, cutime, cstime: fields 14 to 17 of proc(5), counted from behind the process's name
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
