"""Models, releases, SAEs and corpora."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx import AsyncClient

from interpedia_gateway.catalogue.service import shown_provenance, shown_source
from interpedia_shared.auth import Caller
from interpedia_shared.db.models import Release
from interpedia_shared.db.session import Database
from tests.support.factories import World, make_model, make_sae


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/v1/models/none", "model-not-found"),
        ("/v1/models/%00", "model-not-found"),
        ("/v1/models/%F0%9F%90%8D", "model-not-found"),
        ("/v1/corpora/none", "corpus-not-found"),
        ("/v1/corpora/a%00b", "corpus-not-found"),
        ("/v1/saes?model=none", "model-not-found"),
        ("/v1/saes?release=none", "release-not-found"),
        ("/v1/saes?release=%00", "release-not-found"),
        ("/v1/models/tiny/saes/none", "sae-not-found"),
        ("/v1/nothing", "not-found"),
    ],
)
async def test_what_is_not_there_is_404(client: AsyncClient, path: str, slug: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith(slug)


@pytest.mark.parametrize("query", ["architecture=spiral", "limit=0", "cursor=x", "modle=tiny"])
async def test_wrong_queries_are_422(client: AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/saes?{query}")).status_code == 422


async def test_wrong_keys_are_401_on_open_reads(client: AsyncClient, world: World) -> None:
    wrong = [
        {"Authorization": "Bearer ip_00000000_wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "nonsense"},
        {"x-api-key": world.key[:-1]},
        {"x-api-key": ""},
    ]
    for path in ("/v1/models", "/v1/saes", world.path, f"{world.path}/features/0", "/v1/jobs"):
        for headers in wrong:
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get(path, headers={"x-api-key": world.key})).status_code == 200


async def test_models_show_shape_and_number_of_saes(client: AsyncClient, world: World) -> None:
    model = (await client.get("/v1/models/tiny")).json()
    assert (model["id"], model["n_saes"], model["bos_token_id"]) == ("tiny", 1, 0)
    assert model["shape"]["n_layers"] == 4
    listed = (await client.get("/v1/models")).json()
    assert model in listed["items"]


async def test_sae_shows_its_build(client: AsyncClient, world: World) -> None:
    sae = (await client.get(world.path)).json()
    assert (sae["state"], sae["n_features"], sae["version"]) == ("ready", 40, world.version_id)
    assert [version["id"] for version in sae["versions"]] == [world.version_id]
    assert sae["versions"][0]["current"] is True
    assert sae["provenance"]["masking"] == "Not counted: BOS at position 0."
    assert sae["weights"]["files"] == [
        f"{world.path}/weights/{name}" for name in ("cfg.json", "sae_weights.safetensors")
    ]


async def test_corpus_names_sources_and_licences(client: AsyncClient, world: World) -> None:
    corpus = (await client.get("/v1/corpora/texts")).json()
    assert corpus["sources"] == [{"source": "Our own", "licence": "CC0-1.0", "n_documents": 1}]
    assert (corpus["n_contexts"], corpus["context_length"]) == (4, 16)


async def test_lists_page_and_filter(own_client: AsyncClient, own_world: World, database: Database) -> None:
    async with database.write() as session:
        release = Release(slug="set", name="Set", account_id=own_world.account_id)
        session.add(release)
        await make_model(session, "big")
        await session.flush()
        for layer in (2, 10):
            await make_sae(
                session,
                own_world.account_id,
                d_sae=4,
                slug=f"{layer}-topk",
                layer=layer,
                architecture="topk",
                release_id=release.id,
            )
        await make_sae(session, own_world.account_id, d_sae=4, slug="0-x", layer=0, model_id="big")

    async def walk(query: str) -> list[str]:
        seen: list[str] = []
        cursor = ""
        while True:
            page = (await own_client.get(f"/v1/saes?limit=1{query}{cursor}")).json()
            seen += [f"{item['model']}/{item['sae']}" for item in page["items"]]
            if page["next_cursor"] is None:
                return seen
            cursor = f"&cursor={page['next_cursor']}"

    assert await walk("") == ["big/0-x", "tiny/1-res-test", "tiny/2-topk", "tiny/10-topk"]
    assert await walk("&architecture=topk") == ["tiny/2-topk", "tiny/10-topk"]
    assert await walk("&model=big") == ["big/0-x"]
    assert await walk("&release=set") == ["tiny/2-topk", "tiny/10-topk"]
    releases = (await own_client.get("/v1/releases")).json()["items"]
    assert [(item["id"], item["n_saes"]) for item in releases] == [("set", 2)]
    models = (await own_client.get("/v1/models?limit=1")).json()
    assert [item["id"] for item in models["items"]] == ["big"]
    rest = (await own_client.get(f"/v1/models?limit=1&cursor={models['next_cursor']}")).json()
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == (["tiny"], None)


def test_folders_of_the_server_are_shown_to_administrators_only(tmp_path: Path) -> None:
    source = {"kind": "local", "path": f"{tmp_path}/model/"}
    plain = Caller(1, "someone", frozenset({"publish"}))
    admin = Caller(2, "owner", frozenset({"admin"}))
    for caller in (None, plain):
        assert shown_source(source, caller) == {"kind": "local", "path": "model"}
        shown = shown_provenance({"model": {"source": source}}, caller)
        assert shown["model"]["source"]["path"] == "model"
    assert shown_source(source, admin) == source
