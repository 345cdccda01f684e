"""Are 64 calls kept in flight at an endpoint that answers in 200 ms?"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from benchmarks.autointerp.asking import Asking, asking, endpoint, latencies_ms
from interpedia_autointerp.llm import LLMRequest, LLMSettings, Message, Sampling

SLOTS, LATENCY_S = 64, 0.2
MODEL = "scripted-1"


def measure(url: str, work: Path, *, calls: int) -> dict[str, Any]:
    """Ask so many questions as a job does, with run, budget and rows of calls."""
    with endpoint(work, latency_s=LATENCY_S, error=0.0) as base_url:
        return asyncio.run(_measure(url, settings_of(base_url), calls)) | {"load": os.getloadavg()[0]}


def settings_of(base_url: str) -> LLMSettings:
    """The scripted endpoint as `default`."""
    return LLMSettings.model_validate(
        {"llm": {"base_url": base_url, "model": MODEL, "concurrency": SLOTS}, "llm_endpoints": {}}
    )


async def _measure(url: str, settings: LLMSettings, calls: int) -> dict[str, Any]:
    async with asking(url, settings) as it:
        await it.caller.capabilities("default")
        await _ask(it, "warm", 2 * SLOTS)
        before = len(await latencies_ms(url))
        cpu, began = time.process_time(), time.perf_counter()
        failed = await _ask(it, "counted", calls)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    taken = (await latencies_ms(url))[before:]
    return {
        "calls": calls,
        "failed": failed,
        "wall_s": wall,
        "busy": sum(taken) / 1000 / (SLOTS * wall),
        "of_ideal_throughput": calls * LATENCY_S / SLOTS / wall,
        "cpu_ms_per_call": 1000 * cpu / calls,
    }


async def _ask(it: Asking, name: str, calls: int) -> int:
    """All at once; how many failed."""
    return sum([answer.failure is not None async for answer in _answers(it, name, calls)])


async def _answers(it: Asking, name: str, calls: int) -> AsyncGenerator[Any]:
    requests = [
        LLMRequest((Message("user", f"{name} question {number}"),), sampling=Sampling(max_tokens=50))
        for number in range(calls)
    ]
    async with aclosing(it.caller.ask_all(requests, run_id=it.run_id, budget=it.job_id)) as answers:
        async for _, answer in answers:
            yield answer
