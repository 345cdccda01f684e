"""Feature lists and dashboards: refusals first, then every number against what was stored."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from httpx import AsyncClient

from interpedia_gateway.features import dashboards
from interpedia_gateway.features.schemas import Dashboard
from interpedia_shared.dashboards import REASON_RANDOM
from interpedia_shared.db.session import Database
from interpedia_shared.pagination import make_cursor
from tests.support.factories import (
    TOKENS,
    World,
    fill_version,
    make_account,
    make_sae,
    make_version,
)

STORED = 2.0**-16
"""How far a stored logit effect, cosine or r may be off, as a share of the largest of its list."""


@pytest.mark.parametrize("index", [40, -1, 999_999_999_999, 2**63 - 1])
async def test_index_outside_is_404_with_the_range(client: AsyncClient, world: World, index: int) -> None:
    for tail in ("", "/neighbours", "/vector"):
        answer = await client.get(f"{world.path}/features/{index}{tail}")
        assert answer.status_code == 404
        body = answer.json()
        assert body["type"].endswith("feature-not-found")
        assert (body["first"], body["last"], body["index"]) == (0, 39, index)


@pytest.mark.parametrize("index", ["x", "1.0", "1_0", "%00", "0x1", "１", "-", "--1"])
async def test_index_that_is_no_number_is_422(client: AsyncClient, world: World, index: str) -> None:
    answer = await client.get(f"{world.path}/features/{index}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "index"


async def test_unknown_model_and_sae_are_404(client: AsyncClient, world: World) -> None:
    for model, sae, slug in (
        ("none", "x", "model-not-found"),
        ("tiny", "none", "sae-not-found"),
        ("Tiny", "x", "model-not-found"),
        ("a%00b", "x", "model-not-found"),
        ("tiny", "a%00b", "sae-not-found"),
    ):
        answer = await client.get(f"/v1/models/{model}/saes/{sae}/features/0")
        assert answer.status_code == 404, (model, sae)
        assert answer.json()["type"].endswith(slug)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=-5", "limit"),
        ("limit=501", "limit"),
        ("sort=best", "sort"),
        ("order=up", "order"),
        ("min_density=-0.1", "min_density"),
        ("max_density=1.5", "max_density"),
        ("min_density=nan", "min_density"),
        ("min_density=0.5&max_density=0.1", "min_density"),
        ("promotes=nothing-like-it", "promotes"),
        ("promotes=64", "promotes"),
        ("promotes=", "promotes"),
        ("alive=perhaps", "alive"),
        ("version=0", "version"),
        ("version=99999999999999999999", "version"),
        ("min_densty=0.1", "min_densty"),
        ("cursor=!!!", "cursor"),
        ("cursor=WyJ4IiwgWzFdXQ", "cursor"),
    ],
)
async def test_wrong_query_is_422_and_named(
    client: AsyncClient, world: World, query: str, field: str
) -> None:
    answer = await client.get(f"{world.path}/features?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


async def test_a_forged_cursor_is_422_never_500(client: AsyncClient, world: World) -> None:
    scope = {
        "route": "features",
        "version": world.version_id,
        "sort": "index",
        "order": "asc",
        "min_density": None,
        "max_density": None,
        "promotes": None,
        "has_explanation": None,
        "alive": None,
    }
    assert (await client.get(f"{world.path}/features?cursor={make_cursor([3], scope)}")).status_code == 200
    for value in ("x", 2**40, None, True, [1], {"a": 1}, 1.5):
        answer = await client.get(f"{world.path}/features?cursor={make_cursor([value], scope)}")
        assert answer.status_code == 422, value
        assert answer.json()["type"].endswith("bad-cursor")


async def test_a_cursor_is_bound_to_its_filters(client: AsyncClient, world: World) -> None:
    cursor = (await client.get(f"{world.path}/features?limit=5")).json()["next_cursor"]
    for query in ("sort=density", "order=desc", "alive=true", "min_density=0.1"):
        answer = await client.get(f"{world.path}/features?limit=5&cursor={cursor}&{query}")
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("bad-cursor")


async def test_not_built_yet_names_state_and_job(
    own_client: AsyncClient, own_world: World, database: Database
) -> None:
    client, world = own_client, own_world
    async with database.write() as session:
        await make_sae(session, world.account_id, d_sae=4, slug="new", state="building")
    answer = await client.get("/v1/models/tiny/saes/new/features/0")
    assert answer.status_code == 404
    body = answer.json()
    assert body["type"].endswith("version-not-found")
    assert (body["state"], body["job"]) == ("building", None)
    assert "'building'" in body["detail"]
    assert (await client.get("/v1/models/tiny/saes/new/features/4")).json()["last"] == 3
    assert (await client.get("/v1/models/tiny/saes/new/features")).status_code == 404
    assert (await client.get("/v1/models/tiny/saes/new/export")).status_code == 404


async def test_an_unpublished_or_foreign_version_is_404(
    own_client: AsyncClient, own_world: World, database: Database
) -> None:
    client, world = own_client, own_world
    async with database.write() as session:
        half_built = await make_version(session, world.sae_id, world.corpus_id, publish=False)
        other = await make_sae(session, world.account_id, d_sae=4, slug="other")
        foreign = await make_version(session, other, world.corpus_id)
    for version in (half_built, foreign, 987_654):
        answer = await client.get(f"{world.path}/features/0?version={version}")
        assert answer.status_code == 404
        assert answer.json()["version"] == version


async def test_an_old_version_stays_readable(
    own_client: AsyncClient, own_world: World, database: Database
) -> None:
    client, world = own_client, own_world
    old = (await client.get(f"{world.path}/features/1")).json()
    async with database.write() as session:
        new_version = await make_version(session, world.sae_id, world.corpus_id)
        await fill_version(session, world, new_version, seed=1)
    current = await client.get(f"{world.path}/features/1")
    pinned = await client.get(f"{world.path}/features/1?version={world.version_id}")
    assert current.json()["provenance"]["version"] == new_version
    assert current.json()["max_activation"] != old["max_activation"]
    assert pinned.json() == old
    assert "immutable" not in pinned.headers["cache-control"], "its explanation may change"
    assert "immutable" not in current.headers["cache-control"]


@pytest.mark.parametrize("sort", ["index", "density", "max_activation"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_hold_every_feature_once_in_order(
    client: AsyncClient, world: World, sort: str, order: str
) -> None:
    seen: list[dict] = []
    cursor = ""
    while True:
        page = (await client.get(f"{world.path}/features?sort={sort}&order={order}&limit=7{cursor}")).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(item["index"] for item in seen) == list(range(40))
    keys = [(item[sort], item["index"]) for item in seen]
    assert keys == sorted(keys, reverse=order == "desc")


async def test_filters_select_exactly_what_they_say(client: AsyncClient, world: World) -> None:
    async def indices(query: str) -> set[int]:
        answer = await client.get(f"{world.path}/features?limit=100&{query}")
        assert answer.status_code == 200, answer.text
        return {item["index"] for item in answer.json()["items"]}

    densities = [stats.n_active_tokens / 60 for stats in world.stats]
    promotes = [set(stats.top_logits.ids.tolist()) for stats in world.stats]
    assert await indices("alive=true") == {i for i, density in enumerate(densities) if density > 0}
    assert await indices("alive=false") == {9, 19, 29, 39}
    assert await indices("min_density=0.2") == {i for i, density in enumerate(densities) if density >= 0.2}
    assert await indices("max_density=0.2") == {i for i, density in enumerate(densities) if density <= 0.2}
    assert await indices("has_explanation=true") == {3}
    assert await indices("has_explanation=false") == set(range(40)) - {3}
    assert await indices("promotes=%20river") == {i for i, ids in enumerate(promotes) if 3 in ids}
    assert await indices("promotes=3") == {i for i, ids in enumerate(promotes) if 3 in ids}
    assert await indices("promotes=%2242%22") == {i for i, ids in enumerate(promotes) if 7 in ids}
    assert await indices("promotes=42") == {i for i, ids in enumerate(promotes) if 42 in ids}
    assert await indices("promotes=%3C0xE2%3E%3C0x82%3E") == {i for i, ids in enumerate(promotes) if 5 in ids}
    assert await indices("promotes=%22") == {i for i, ids in enumerate(promotes) if 9 in ids}


async def test_a_promoted_token_without_its_space_gets_a_hint(client: AsyncClient, world: World) -> None:
    answer = await client.get(f"{world.path}/features?promotes=river")
    assert answer.status_code == 422
    assert "leading space" in answer.json()["detail"]


async def test_list_items_carry_names_tokens_and_counts(client: AsyncClient, world: World) -> None:
    items = (await client.get(f"{world.path}/features?limit=5")).json()["items"]
    item = items[3]
    stats = world.stats[3]
    assert item["ref"] == "tiny/1-res-test/3"
    assert (item["model"], item["sae"], item["index"]) == ("tiny", "1-res-test", 3)
    assert item["n_explanations"] == 1
    assert items[0]["n_explanations"] == 0
    assert [token["id"] for token in item["top_logits"]] == stats.top_logits.ids.tolist()
    assert item["peak_tokens"] == [{"id": 3, "token": " river"}]
    assert item["max_activation"] == stats.max_activation


async def test_dashboard_shows_every_stored_number(client: AsyncClient, world: World) -> None:
    answer = await client.get(f"{world.path}/features/4")
    board, stats = Dashboard.model_validate(answer.json()), world.stats[4]
    assert board.model_extra in (None, {})
    assert (board.alive, board.density, board.n_active_tokens) == (True, 20 / 60, 20)
    assert board.max_activation == pytest.approx(stats.max_activation)
    mean = stats.activation_sum / 20
    assert board.moments is not None
    assert board.moments.mean == pytest.approx(mean)
    assert board.moments.std == pytest.approx(np.sqrt(stats.activation_sum_squares / 20 - mean**2))
    assert board.activation_histogram.counts == list(range(50))
    assert len(board.activation_histogram.edges) == 51
    assert board.activation_histogram.edges[-1] == pytest.approx(stats.max_activation, rel=1e-6)
    assert [interval.n_contexts for interval in board.intervals] == [0, 1, 2, 3, 4]
    assert board.intervals[4].high == pytest.approx(stats.max_activation, rel=1e-6)
    assert [effect.id for effect in board.top_logits] == stats.top_logits.ids.tolist()
    effects = stats.top_logits.values
    error = STORED * float(np.abs(effects).max())
    assert [effect.value for effect in board.top_logits] == pytest.approx(effects.tolist(), abs=error)
    assert [(near.index, near.cosine) for near in board.nearest] == [
        (5, pytest.approx(0.9, abs=STORED)),
        (6, pytest.approx(0.5, abs=STORED)),
        (7, pytest.approx(0.25, abs=STORED)),
    ]
    assert [(near.ref, near.n_tokens) for near in board.coactive] == [
        ("tiny/1-res-test/5", 7),
        ("tiny/1-res-test/6", 3),
    ]


async def test_examples_show_text_reason_and_where_it_comes_from(client: AsyncClient, world: World) -> None:
    top, middle, silent = (await client.get(f"{world.path}/features/4")).json()["examples"]
    peak = world.stats[4].max_activation
    assert (top["reason"], middle["reason"], silent["reason"]) == ("top", "interval", "random")
    assert top["interval"] is None
    assert silent["interval"] is None
    assert middle["interval"]["k"] == 4
    assert middle["interval"]["low"] <= peak * 0.7 <= middle["interval"]["high"]
    assert (top["repeat"], middle["repeat"]) == (False, True)
    assert top["token_ids"] == world.contexts[0]
    assert top["tokens"][1:4] == ["<0xE2><0x82>", "<0xAC>", " river"]
    assert top["text"].startswith("<|bos|>€ river")
    assert top["activations"]["positions"] == [3, 5]
    assert top["activations"]["values"] == pytest.approx([peak, peak / 2], rel=2**-10)
    assert top["peak_position"] == 3
    assert silent["activations"] == {"positions": [], "values": []}
    assert silent["max_activation"] is None
    assert middle["document"] == {
        "name": "A walk",
        "source": "Our own",
        "licence": "CC0-1.0",
        "token_offset": 15,
    }
    assert world.examples[4].reasons[2] == REASON_RANDOM


async def test_a_dead_feature_is_shown_as_dead(client: AsyncClient, world: World) -> None:
    board = (await client.get(f"{world.path}/features/9")).json()
    assert (board["alive"], board["density"], board["moments"], board["snippet"]) == (False, 0.0, None, None)
    assert board["examples"] == []
    assert board["activation_histogram"] == {"edges": [], "counts": []}
    assert len(board["top_logits"]) == 5


async def test_provenance_is_whole(client: AsyncClient, world: World) -> None:
    shown = (await client.get(f"{world.path}/features/0")).json()["provenance"]
    assert shown["version"] == world.version_id
    assert shown["hook"] == "blocks.1.hook_resid_post"
    assert shown["corpus"]["digest"] == "d" * 64
    assert shown["corpus"]["prepend_bos"] is True
    assert len(shown["sae_sha256"]) == 64
    assert shown["settings"] == {"k_top": 20}
    assert shown["build"]["final_norm_gain"] is True
    assert shown["build"]["masking"] == "Not counted: BOS at position 0."
    assert shown["model"]["dtype"] == "float32"


async def test_neighbours_come_with_their_own_numbers(client: AsyncClient, world: World) -> None:
    found = (await client.get(f"{world.path}/features/4/neighbours")).json()
    assert [(item["index"], item["cosine"]) for item in found["nearest"]] == [
        (5, pytest.approx(0.9, abs=STORED)),
        (6, pytest.approx(0.5, abs=STORED)),
        (7, pytest.approx(0.25, abs=STORED)),
    ]
    assert found["nearest"][0]["max_activation"] == world.stats[5].max_activation
    assert [item["pearson"] for item in found["coactive"]] == pytest.approx([0.75, 0.5], abs=STORED)


async def test_batch_keeps_the_order_and_fails_item_by_item(client: AsyncClient, world: World) -> None:
    refs = [
        "tiny/1-res-test/7",
        "tiny/1-res-test/40",
        "tiny/none/0",
        "none/x/0",
        "tiny/1-res-test/-1",
        "tiny/1-res-test/2",
        "tiny/1-res-test/7",
    ]
    for include in ("summary", "dashboard"):
        answer = await client.post("/v1/features/batch", json={"refs": refs, "include": include})
        assert answer.status_code == 200
        items = answer.json()["items"]
        assert [item["ref"] for item in items] == refs
        found = [item[include]["index"] if item[include] else None for item in items]
        assert found == [7, None, None, None, None, 2, 7]
        slugs = [item["problem"]["type"].rsplit("/", 1)[-1] if item["problem"] else None for item in items]
        assert slugs == [
            None,
            "feature-not-found",
            "sae-not-found",
            "model-not-found",
            "invalid-request",
            None,
            None,
        ]


@pytest.mark.parametrize("index", ["9" * 19, "-" + "9" * 30, "9" * 5000])
async def test_an_index_past_64_bits_is_404_with_the_range(
    client: AsyncClient, world: World, index: str
) -> None:
    answer = await client.get(f"{world.path}/features/{index}")
    assert answer.status_code == 404
    body = answer.json()
    assert body["type"].endswith("feature-not-found")
    assert (body["first"], body["last"]) == (0, 39)


async def test_batch_says_of_a_long_index_that_it_is_not_there(client: AsyncClient, world: World) -> None:
    refs = [f"tiny/1-res-test/{'9' * n_digits}" for n_digits in (9, 10, 19, 5000)]
    items = (await client.post("/v1/features/batch", json={"refs": refs})).json()["items"]
    assert [item["ref"] for item in items] == refs
    assert all(item["problem"]["type"].endswith("feature-not-found") for item in items)
    assert {item["problem"]["last"] for item in items} == {39}


async def test_batch_limits_dashboards_but_not_summaries(client: AsyncClient, world: World) -> None:
    for include, number, status in (("dashboard", 20, 200), ("dashboard", 21, 422), ("summary", 200, 200)):
        body = {"refs": ["tiny/1-res-test/0"] * number, "include": include}
        answer = await client.post("/v1/features/batch", json=body)
        assert answer.status_code == status, answer.text
        if status == 422:
            assert answer.json()["errors"][0]["field"] == "#/refs"
            assert (answer.json()["limit"], answer.json()["given"]) == (20, 21)


async def test_other_requests_are_answered_while_dashboards_are_rendered(
    client: AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_rendering, may_go_on = threading.Event(), threading.Event()
    render = dashboards.render

    def slow(*args: Any) -> list[Dashboard]:
        is_rendering.set()
        assert may_go_on.wait(10)
        return render(*args)

    monkeypatch.setattr(dashboards, "render", slow)
    body = {"refs": ["tiny/1-res-test/0"], "include": "dashboard"}
    batch = asyncio.create_task(client.post("/v1/features/batch", json=body))
    assert await asyncio.to_thread(is_rendering.wait, 10)
    assert (await client.get("/livez")).status_code == 200
    assert not batch.done()
    may_go_on.set()
    assert (await batch).status_code == 200


async def test_batch_refuses_none_and_too_many(client: AsyncClient, world: World) -> None:
    for refs in ([], ["tiny/1-res-test/0"] * 201):
        answer = await client.post("/v1/features/batch", json={"refs": refs})
        assert answer.status_code == 422
    unknown = await client.post("/v1/features/batch", json={"refs": ["tiny/1-res-test/0"], "includ": 1})
    assert unknown.status_code == 422


async def test_etag_saves_the_body_and_changes_with_it(client: AsyncClient, world: World) -> None:
    for path in ("", "/features", "/features/0", "/features/0/neighbours", "/features/0/vector"):
        first = await client.get(world.path + path)
        etag = first.headers["etag"]
        assert not etag.startswith("W/")
        again = await client.get(world.path + path, headers={"If-None-Match": f'"other", {etag}'})
        assert (again.status_code, again.content) == (304, b"")
        other = await client.get(world.path + path, headers={"If-None-Match": '"other"'})
        assert other.status_code == 200
    one, two = [await client.get(f"{world.path}/features/{index}") for index in (0, 1)]
    assert one.headers["etag"] != two.headers["etag"]


async def test_private_saes_are_their_owners_only(
    own_client: AsyncClient, own_world: World, database: Database
) -> None:
    client, world = own_client, own_world
    async with database.write() as session:
        _, other_key = await make_account(session, "other")
        sae_id = await make_sae(session, world.account_id, d_sae=1, slug="secret", visibility="private")
        await make_version(session, sae_id, world.corpus_id)
        unlisted = await make_sae(session, world.account_id, d_sae=1, slug="quiet", visibility="unlisted")
        await make_version(session, unlisted, world.corpus_id)
    owner = {"Authorization": f"Bearer {world.key}"}
    path = "/v1/models/tiny/saes/secret"
    for tail in ("", "/features", "/features/0", "/export", "/features/0/vector", "/weights/cfg.json"):
        for headers in ({}, {"x-api-key": other_key}):
            answer = await client.get(path + tail, headers=headers)
            assert answer.status_code == 404
            assert answer.json()["type"].endswith("sae-not-found")
    mine = await client.get(path, headers=owner)
    assert mine.status_code == 200
    assert mine.headers["cache-control"].startswith("private")
    batch = await client.post("/v1/features/batch", json={"refs": ["tiny/secret/0"]})
    assert batch.json()["items"][0]["problem"]["type"].endswith("sae-not-found")

    async def listed(headers: dict[str, str]) -> list[str]:
        return [item["sae"] for item in (await client.get("/v1/saes", headers=headers)).json()["items"]]

    assert await listed({}) == ["1-res-test"]
    assert await listed({"x-api-key": other_key}) == ["1-res-test"]
    assert sorted(await listed(owner)) == ["1-res-test", "quiet", "secret"]
    assert (await client.get("/v1/models/tiny/saes/quiet")).status_code == 200


async def test_token_strings_cover_what_cannot_be_printed() -> None:
    assert TOKENS[5] + TOKENS[6] == "€".encode()
