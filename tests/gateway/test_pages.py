"""The start page, the API's documentation, and what all answers have in common."""

from __future__ import annotations

import re

from httpx import AsyncClient

from interpedia_gateway.pages.docs import assets_folder
from interpedia_shared.db.session import Database
from tests.support.factories import World, make_account, make_model, make_sae


async def test_start_page_says_when_there_is_nothing(own_client: AsyncClient) -> None:
    page = await own_client.get("/")
    assert page.status_code == 200
    assert "Nothing is published yet" in page.text
    assert 'href="/docs"' in page.text


async def test_start_page_escapes_and_hides(own_client: AsyncClient, database: Database) -> None:
    async with database.write() as session:
        owner, _ = await make_account(session)
        await make_model(session)
        await make_sae(session, owner, d_sae=4, title="<script>alert(1)</script>")
        await make_sae(session, owner, d_sae=4, slug="hush", visibility="private")
        await make_sae(session, owner, d_sae=4, slug="quiet", visibility="unlisted")
    page = await own_client.get("/")
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "building" in page.text
    assert "hush" not in page.text
    assert "quiet" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_every_link_of_the_start_page_leads_somewhere(client: AsyncClient, world: World) -> None:
    page = await client.get("/")
    links = {link.replace("&amp;", "&") for link in re.findall(r'href="([^"]+)"', page.text)}
    assert any("/features?" in link for link in links)
    assert any(re.search(r"/features/\d+$", link) for link in links)
    for link in links:
        assert link.startswith("/"), link
        assert (await client.get(link.split("#")[0])).status_code == 200, link


async def test_docs_need_no_other_host(client: AsyncClient) -> None:
    for path in ("/docs", "/redoc"):
        page = await client.get(path)
        assert page.status_code == 200
        sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sources
        for source in sources:
            assert source.startswith("/"), source
            assert (await client.get(source)).status_code == 200
    assert {"swagger-ui-bundle.js", "swagger-ui.css"} <= {file.name for file in assets_folder().iterdir()}


async def test_browsers_of_other_sites_may_read_and_send_keys(client: AsyncClient, world: World) -> None:
    preflight = await client.options(
        world.path,
        headers={
            "Origin": "https://example.org",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization, x-api-key, last-event-id",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    for path in (world.path, "/v1/models/none"):
        answer = await client.get(path, headers={"Origin": "https://example.org"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "etag" in answer.headers["access-control-expose-headers"].lower()


async def test_answers_are_compressed_for_who_asks(client: AsyncClient, world: World) -> None:
    answer = await client.get(f"{world.path}/features/0", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "authorization" in answer.headers["vary"].lower()


async def test_health_and_metrics(client: AsyncClient, world: World) -> None:
    assert (await client.get("/livez")).json()["service"] == "api-gateway"
    assert (await client.get("/readyz")).json()["checks"] == {"database": "ok"}
    metrics = (await client.get("/metrics")).text
    assert 'route="/v1/models/{model}/saes/{sae}/features/{index}"' in metrics
