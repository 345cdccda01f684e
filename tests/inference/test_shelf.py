"""SAEs that come and go within a budget, and what happens while they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from interpedia_inference.metrics import SAE_LOADS
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf import saes
from interpedia_shared.settings import DatabaseSettings
from tests.inference.live_host import LiveHost, live_host
from tests.support.live_world import LiveWorld

STANDARD = 4 * (2 * 64 * 96 + 96 + 64)
"""Bytes of an SAE with 96 features on a stream of 64."""


@pytest.fixture
def crowded(
    world: LiveWorld, live_settings: DatabaseSettings, host_settings: dict[str, Any]
) -> Iterator[LiveHost]:
    """A host with room for two SAEs and a half."""
    settings = InferenceSettings(**host_settings, max_sae_bytes=int(2.5 * STANDARD))
    with live_host(settings, live_settings) as host:
        host.wait_until("ready")
        yield host


async def post(host: LiveHost, *slugs: str, **changes: Any) -> httpx.Response:
    features = [{"sae": slug, "feature": 7} for slug in slugs]
    async with httpx.AsyncClient(base_url=host.url, timeout=60, verify=False) as client:
        body = {"model": "tiny", "texts": ["the red cat is in the house"], "features": features, **changes}
        return await client.post("/v1/activations", json=body)


def loads() -> float:
    return SAE_LOADS.labels("loaded")._value.get()


async def test_saes_are_paged_out_and_in_and_say_the_same(crowded: LiveHost) -> None:
    first = (await post(crowded, "1-res-std")).json()["results"]
    await post(crowded, "1-bare")
    assert crowded.capabilities()["saes_loaded"] == ["1-res-std", "1-bare"]
    await post(crowded, "1-res-std")
    await post(crowded, "0-res-topk")
    assert crowded.capabilities()["saes_loaded"] == ["1-res-std", "0-res-topk"]
    await post(crowded, "1-bare")
    assert crowded.capabilities()["saes_loaded"] == ["0-res-topk", "1-bare"]
    assert (await post(crowded, "1-res-std")).json()["results"] == first


async def test_more_than_the_budget_at_once_is_refused_with_both_numbers(crowded: LiveHost) -> None:
    answer = await post(crowded, "1-res-std", "1-bare", "0-res-topk")
    assert answer.status_code == 413
    body = answer.json()
    assert (body["what"], body["limit"], body["value"]) == ("sae_bytes", int(2.5 * STANDARD), 3 * STANDARD)


async def test_what_is_in_use_stays_and_others_wait_for_it(crowded: LiveHost) -> None:
    with crowded.held():
        using = asyncio.create_task(post(crowded, "1-res-std", "1-bare"))
        await asyncio.to_thread(crowded.wait_for, lambda now: len(now["saes_loaded"]) == 2)
        assert (await post(crowded, "0-res-topk", deadline_s=0.3)).status_code == 504
        assert crowded.capabilities()["saes_loaded"] == ["1-res-std", "1-bare"]
        patient = asyncio.create_task(post(crowded, "0-res-topk"))
        await asyncio.to_thread(crowded.wait_for, lambda now: now["queue_depth"] == 2)
    assert (await using).status_code == 200
    assert (await patient).status_code == 200
    assert "0-res-topk" in crowded.capabilities()["saes_loaded"]


async def test_two_callers_never_wait_for_each_others_saes(crowded: LiveHost) -> None:
    pairs = [("1-res-std", "1-bare"), ("1-bare", "0-res-topk"), ("0-res-topk", "1-res-std")] * 6
    answers = await asyncio.gather(*(post(crowded, *pair) for pair in pairs))
    assert {answer.status_code for answer in answers} == {200}


async def test_one_load_serves_all_who_ask(crowded: LiveHost) -> None:
    before = loads()
    answers = await asyncio.gather(*(post(crowded, "1-res-std") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert loads() - before == 1


async def test_a_load_that_breaks_is_tried_again(crowded: LiveHost, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:

        def crash(*_args: Any) -> None:
            raise KeyError("nobody thought of this")

        broken.setattr(saes, "load_sae", crash)
        assert (await post(crowded, "1-res-std")).status_code == 500
    assert crowded.capabilities()["saes_loaded"] == []
    assert (await post(crowded, "1-res-std")).status_code == 200


async def test_a_load_that_fails_is_said_and_tried_again(
    crowded: LiveHost, world: LiveWorld, live_data_dir: Path
) -> None:
    sha256 = world.infos["1-res-std"].weights_sha256 or ""
    blob = live_data_dir / "blobs" / sha256[:2] / sha256
    content = blob.read_bytes()
    try:
        blob.unlink()
        answers = await asyncio.gather(*(post(crowded, "1-res-std") for _ in range(3)))
        assert {answer.status_code for answer in answers} == {503}
        assert "1-res-std" in answers[0].json()["detail"]
        blob.write_bytes(b"\0" * 100)
        broken = await post(crowded, "1-res-std")
        assert broken.status_code == 422
        assert broken.json()["type"].endswith("bad-sae")
    finally:
        blob.write_bytes(content)
    assert crowded.capabilities()["saes_loaded"] == []
    assert (await post(crowded, "1-res-std")).status_code == 200
