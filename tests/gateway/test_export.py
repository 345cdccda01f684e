"""Exports: the same rows in both formats, whole or visibly broken."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from httpx import AsyncClient, RemoteProtocolError
from sqlalchemy import delete
from starlette.requests import ClientDisconnect
from starlette.types import Message

from interpedia_gateway.app import create_app
from interpedia_gateway.export import endpoints, slots
from interpedia_gateway.export.stream import stream
from interpedia_shared.db.models import Feature
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import gateway_settings
from tests.support.factories import World
from tests.support.serving import serving


@pytest.mark.parametrize("query", ["format=csv", "version=0", "formatt=ndjson"])
async def test_wrong_queries_are_422(client: AsyncClient, world: World, query: str) -> None:
    assert (await client.get(f"{world.path}/export?{query}")).status_code == 422


async def test_a_missing_feature_breaks_the_transfer(
    own_world: World, database: Database, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    async with database.write() as session:
        await session.execute(delete(Feature).where(Feature.idx == 23))
    app = create_app(gateway_settings(tmp_path), database_settings)
    with serving(app) as url:
        for format in ("ndjson", "parquet"):  # noqa: A001
            plain = {"accept-encoding": "identity"}
            async with AsyncClient(base_url=url, headers=plain, timeout=300) as caller:
                with pytest.raises(RemoteProtocolError):
                    await caller.get(f"{own_world.path}/export?format={format}")


async def test_a_burst_gets_503_and_every_slot_comes_back(
    client: AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = asyncio.Event()

    async def slow(*args: Any) -> AsyncGenerator[bytes]:
        await may_go_on.wait()
        async for chunk in stream(*args):
            yield chunk

    monkeypatch.setattr(endpoints, "stream", slow)
    burst = [asyncio.create_task(client.get(f"{world.path}/export")) for _ in range(7)]
    async with asyncio.timeout(300):
        while sum(one.done() for one in burst) < 3:  # noqa: ASYNC110 (several tasks end, no event)
            await asyncio.sleep(0.01)
    refused = [one.result() for one in burst if one.done()]
    assert [answer.status_code for answer in refused] == [503] * 3
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    may_go_on.set()
    assert sorted(answer.status_code for answer in await asyncio.gather(*burst)) == [200] * 4 + [503] * 3
    again = await asyncio.gather(*(client.get(f"{world.path}/export") for _ in range(4)))
    assert [answer.status_code for answer in again] == [200] * 4


async def test_a_reader_that_stalls_loses_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    async def content() -> AsyncGenerator[bytes]:
        yield b"x"

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def stalled(message: Message) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(slots, "STALL_S", 0.02)
    semaphore = asyncio.Semaphore(1)
    await slots.take_slot(semaphore)
    response = slots.SlotResponse(content(), semaphore, "text/plain", {})
    with pytest.raises((ClientDisconnect, TimeoutError)):
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, never, stalled)
    assert not semaphore.locked()


async def test_parquet_and_ndjson_hold_the_same_rows(client: AsyncClient, world: World) -> None:
    lines = (await client.get(f"{world.path}/export?format=ndjson")).content.splitlines()
    rows = [orjson.loads(line) for line in lines]
    answer = await client.get(f"{world.path}/export")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert "tiny_1-res-test_v" in answer.headers["content-disposition"]
    file = pq.ParquetFile(io.BytesIO(answer.content))
    assert file.num_row_groups == 6  # 40 rows in chunks of 7
    table = file.read().to_pylist()
    assert [row["index"] for row in rows] == list(range(40))
    assert [row["ref"] for row in table] == [row["ref"] for row in rows]
    for ours, theirs in zip(rows, table, strict=True):
        assert theirs["top_logits"]["tokens"] == ours["top_logits"]["tokens"]
        for example, same in zip(ours["examples"], theirs["examples"], strict=True):
            assert same == {**example, "values": pytest.approx(example["values"])}
        assert theirs["max_activation"] == ours["max_activation"]
    about = orjson.loads(file.schema_arrow.metadata[b"interpedia"])
    assert about["provenance"]["version"] == world.version_id


async def test_exported_numbers_are_the_dashboards(client: AsyncClient, world: World) -> None:
    line = (await client.get(f"{world.path}/export?format=ndjson")).content.splitlines()[4]
    row = orjson.loads(line)
    board = (await client.get(f"{world.path}/features/4")).json()
    assert row["std_activation"] == board["moments"]["std"]
    assert row["top_logits"]["values"] == pytest.approx([one["value"] for one in board["top_logits"]])
    assert row["nearest_indices"] == [one["index"] for one in board["nearest"]]
    for ours, theirs in zip(row["examples"], board["examples"], strict=True):
        assert ours["token_ids"] == theirs["token_ids"]
        assert ours["positions"] == theirs["activations"]["positions"]
        assert ours["interval"] == (theirs["interval"] or {}).get("k")


async def test_ndjson_is_compressed_for_who_asks_and_parquet_never(client: AsyncClient, world: World) -> None:
    for format, encoding in (("ndjson", "gzip"), ("parquet", None)):  # noqa: A001
        answer = await client.get(f"{world.path}/export?format={format}", headers={"Accept-Encoding": "gzip"})
        assert answer.headers.get("content-encoding") == encoding
        assert answer.status_code == 200
