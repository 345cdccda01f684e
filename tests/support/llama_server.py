"""A real local LLM with an OpenAI-compatible API: `python -m tests.support.llama_server GGUF`.

It needs `xllamacpp`, which is no requirement of the project. One thread: two would spin on shared cores.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONTEXT = 1024


def main(path: str) -> None:
    """Serve until standard input ends."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = CONTEXT
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"ADDRESS {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


@contextmanager
def llama_server(gguf: Path, *, patience_s: float = 120.0) -> Iterator[str]:
    """The model in a process of its own; gives the base URL, with /v1."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.llama_server", str(gguf)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + patience_s
        for line in process.stdout:
            if line.startswith("ADDRESS "):
                yield line.removeprefix("ADDRESS ").strip() + "/v1"
                return
            assert time.monotonic() < deadline
        raise RuntimeError("the server did not start")
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


if __name__ == "__main__":
    main(sys.argv[1])
