"""A process to be killed: `python -m tests.support.llm_asker URL COUNT` asks the scripted endpoint."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from interpedia_autointerp.llm import Caller
from interpedia_shared.db.session import Database
from interpedia_shared.settings import load_database_settings
from tests.support.llm import llm_settings, question


async def run(url: str, count: int) -> None:
    """Ask `count` questions for the run and the job that the environment names."""
    database = Database(load_database_settings())
    # it is to be killed: who comes after it waits until the lease is over
    caller = Caller(database, llm_settings(url, price_in=1.0, price_out=1.0), lease_s=2.0)
    names = {"run_id": uuid.UUID(os.environ["ASKER_RUN"]), "budget": uuid.UUID(os.environ["ASKER_JOB"])}
    requests = [question(f"Question {number}?") for number in range(count)]
    async for _ in caller.ask_all(requests, **names):
        pass
    await caller.aclose()
    await database.dispose()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
