"""A worker as a process: until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from interpedia_shared.jobs.worker import Worker

ABANDONED = 1


async def run_until_signal(worker: Worker) -> None:
    """Run the worker until the process is asked to stop.

    A thread cannot be killed, and Python waits for all of them at its end: when a handler did not notice the
    stop in time, the process ends here and now, with status 1.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await worker.run(stop)
    if worker.abandoned:
        logging.shutdown()
        os._exit(ABANDONED)
