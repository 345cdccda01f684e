"""A worker to be killed: it runs as `python -m` would run it. Its handlers leave traces in a folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from interpedia_shared.jobs import TaskContext, Worker, WorkerTiming, run_until_signal
from interpedia_shared.logging import configure_logging
from interpedia_shared.settings import load_database_settings


def folder() -> Path:
    """Where the test looks for traces."""
    return Path(os.environ["JOB_WORKER_FOLDER"])


def trace(name: str, line: str) -> None:
    """One line, in one write: several processes add to the same file."""
    with (folder() / name).open("a") as file:
        file.write(line + "\n")


def wait_for_file(context: TaskContext) -> None:
    """Report a step at a time until the file that the task names exists."""
    trace("started", f"{os.getpid()} {context.ordinal} {context.attempt}")
    done = 0
    while not (folder() / context.params["until"]).exists():
        context.check()
        time.sleep(0.02)
        done = min(done + 1, context.weight)
        context.report(done)
    trace("finished", f"{os.getpid()} {context.ordinal} {context.attempt}")


async def wait(context: TaskContext) -> dict[str, int]:
    """The handler of `wait`."""
    await asyncio.to_thread(wait_for_file, context)
    return {f"pid{context.ordinal}": os.getpid()}


async def poison(context: TaskContext) -> None:
    """The handler of `poison`: the process is gone, as after a segmentation fault."""
    trace("poisoned", f"{os.getpid()} {context.ordinal} {context.attempt}")
    await asyncio.to_thread(os.kill, os.getpid(), signal.SIGKILL)


async def count(context: TaskContext) -> dict[str, int]:
    """The handler of `count`."""
    trace("counted", f"{os.getpid()} {context.ordinal} {context.attempt}")
    return {f"task{context.ordinal}": context.ordinal}


def deaf_sleep() -> None:
    """A thread that hears nothing."""
    time.sleep(600)


async def deaf(context: TaskContext) -> None:
    """The handler of `deaf`: it never checks."""
    trace("started", f"{os.getpid()} {context.ordinal} {context.attempt}")
    await asyncio.to_thread(deaf_sleep)


if __name__ == "__main__":
    configure_logging("INFO", "text")
    worker = Worker(
        load_database_settings(),
        {"wait": wait, "poison": poison, "count": count, "deaf": deaf},
        queue="ingest",
        timing=WorkerTiming(**json.loads(os.environ["JOB_WORKER_TIMING"])),
    )
    asyncio.run(run_until_signal(worker))
