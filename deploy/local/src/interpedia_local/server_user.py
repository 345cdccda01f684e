"""Which user the database server runs as: Postgres refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from interpedia_local.processes import Command, Identity, spawn

NOBODY_UID = 65534


def choose_identity(home: Path, cluster: Path) -> Identity | None:
    """Who runs the server: None (ourselves) unless we are root.

    As root it is the owner of the cluster or of the data folder when that is not root, else `nobody`. No
    account is created and no permission changed for it.
    """
    if os.geteuid() != 0:
        return None
    for folder in (cluster, home):
        if folder.exists() and (owner := folder.stat().st_uid) != 0:
            return _identity(owner, folder.stat().st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(NOBODY_UID, NOBODY_UID, "nobody")
    return Identity(nobody.pw_uid, nobody.pw_gid, "nobody")


def _identity(uid: int, gid: int) -> Identity:
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, gid, str(uid))
    return Identity(uid, account.pw_gid, account.pw_name)


def can_enter(folder: Path, identity: Identity | None) -> bool:
    """True when `identity` can make `folder` its working directory: the kernel is asked, not mode bits."""
    return _succeeds(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], identity)


def can_run(program: Path, identity: Identity | None) -> bool:
    """True when `identity` can run `program --version`."""
    return _succeeds([str(program), "--version"], identity)


def _succeeds(arguments: list[str], identity: Identity | None) -> bool:
    command = Command(arguments, environment={"PATH": "/usr/bin:/bin"}, identity=identity, folder=Path("/"))
    try:
        return spawn(command, output=subprocess.DEVNULL).wait(timeout=30) == 0
    except OSError:
        return False
