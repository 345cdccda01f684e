"""The floor's process, asked over a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.inference.turns import Spent
from benchmarks.processes import ChildFailed, child_environment


class Floor:
    """Plain `transformers` in a process of its own; see `floor_job`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def read(
        self, rows: Sequence[Sequence[int]], *, sae: str, features: Sequence[int], batch: int
    ) -> tuple[Spent, list[list[float]]]:
        """Read features of an SAE `<layer>-…` on rows of equal length; returns the first row's values."""
        answer = self._ask(
            {
                "op": "read",
                "rows": [list(row) for row in rows],
                "sae": sae,
                "layer": int(sae.split("-", maxsplit=1)[0]),
                "features": list(features),
                "batch": batch,
            }
        )
        return _spent(answer), answer["values"]

    def generate(self, ids: Sequence[int], *, rows: int, new_tokens: int) -> tuple[Spent, list[int]]:
        """Continue a prompt in several equal rows of one batch; returns the tokens of one."""
        answer = self._ask({"op": "generate", "ids": list(ids), "rows": rows, "new_tokens": new_tokens})
        return _spent(answer), answer["token_ids"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ChildFailed(f"the floor ended: see {self._log.name}")
        return json.loads(line)


def _spent(answer: dict[str, Any]) -> Spent:
    return Spent(answer["wall_s"], answer["cpu_s"])


@contextmanager
def floor(checkpoint: Path, saes: Path, *, threads: int, log: Path) -> Generator[Floor]:
    """Start the floor; it ends with the block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.inference.floor_job", checkpoint, saes, str(threads)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Floor(process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
