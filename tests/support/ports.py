"""Ports for services that a test starts a while after it has chosen where they are to listen."""

from __future__ import annotations

import os
import random
from itertools import count

from interpedia_local.ports import is_free

# Below what the system hands out by itself, and a stretch for each process of a test run: nobody else takes
# such a port between the choice and the use.
_FIRST, _STRETCH, _STRETCHES = 12_000, 2_500, 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _STRETCHES
_turn = count(random.randrange(_STRETCH))


def unused_port() -> int:
    """A port that nobody listens on and that no other test of this run is given."""
    for turn in _turn:
        port = _FIRST + _worker * _STRETCH + turn % _STRETCH
        if is_free(port):
            return port
    raise AssertionError("count() does not end")
