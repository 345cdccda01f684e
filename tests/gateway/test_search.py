"""Search: what is found by which list, what filters hide, and what bad input gets."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import delete, select, text, update

from interpedia_autointerp.embed import EmbedExplanations
from interpedia_gateway.app import create_app
from interpedia_gateway.search.service import Search, ref_of
from interpedia_gateway.search.vectors import TextVectors
from interpedia_gateway.state import Gateway
from interpedia_local.postgres import LocalPostgres
from interpedia_shared.db.models import Explanation, Feature
from interpedia_shared.db.session import Database
from interpedia_shared.embeddings import Embedder, EmbeddingRefused, EmbeddingUnavailable
from interpedia_shared.embeddings.minilm import MODEL, MiniLM
from interpedia_shared.explanations import HUMAN, NewExplanation, add_explanations, choose_default
from interpedia_shared.jobs import TaskContext
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import calling, gateway_settings
from tests.gateway.explained import Explained, add_score, make_run, publish_explained


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM.load()


@pytest.fixture(scope="module")
def settings_of_search(postgres: LocalPostgres, migrated_template: str) -> Iterator[DatabaseSettings]:
    """A database of this module's own."""

    async def copy() -> None:
        connection = await asyncpg.connect(postgres.database_url("postgres"))
        await connection.execute(f'CREATE DATABASE gateway_search TEMPLATE "{migrated_template}"')
        await connection.close()

    asyncio.run(copy())
    yield DatabaseSettings(url=SecretStr(postgres.database_url("gateway_search")))
    postgres.drop_database("gateway_search")


def task(database: Database, **params: Any) -> TaskContext:
    return TaskContext(uuid.uuid4(), 1, 0, params, {}, database, weight=100)


@pytest.fixture(scope="module")
async def explained(
    settings_of_search: DatabaseSettings, tmp_path_factory: pytest.TempPathFactory, minilm: MiniLM
) -> AsyncIterator[Explained]:
    """The catalogue, all of it embedded by the job."""
    database = Database(settings_of_search)
    async with database.write() as session:
        found = await publish_explained(session, tmp_path_factory.mktemp("search"))
        # Feature 7 peaks on " river" and promotes it most; feature 8 promotes it last.
        await session.execute(update(Feature).values(top_logit_ids=[11, 12], peak_token_ids=[13]))
        await session.execute(
            update(Feature)
            .where(Feature.sae_version_id == found.world.version_id, Feature.idx == 7)
            .values(top_logit_ids=[3, 11], peak_token_ids=[3])
        )
        await session.execute(
            update(Feature)
            .where(Feature.sae_version_id == found.world.version_id, Feature.idx == 8)
            .values(top_logit_ids=[11, 12, 14, 3])
        )
        run = await make_run(session, found.world.account_id)
        await add_score(session, run, found.ids["rivers and lakes"], 0.9)
        await choose_default(session, found.world.sae_id, [0])
    done = await EmbedExplanations(lambda: minilm)(task(database))
    assert done == {"embedding": MODEL, "embedded": 7}
    yield found
    await database.dispose()


def app_with(settings: DatabaseSettings, data_dir: Path, load: Any) -> FastAPI:
    """A gateway whose embedder is the one given."""
    app = create_app(gateway_settings(data_dir), settings)
    gateway: Gateway = app.state.gateway
    vectors = TextVectors(load, 100)
    search = Search(gateway.database, gateway.vocabularies, vectors)
    app.state.gateway = replace(gateway, vectors=vectors, search=search)
    return app


@pytest.fixture(scope="module")
async def caller(
    explained: Explained, settings_of_search: DatabaseSettings, tmp_path_factory: pytest.TempPathFactory,
    minilm: MiniLM,
) -> AsyncIterator[httpx.AsyncClient]:  # fmt: skip
    del explained
    app = app_with(settings_of_search, tmp_path_factory.mktemp("data"), lambda: minilm)
    async with calling(app) as client:
        yield client


async def find(
    client: httpx.AsyncClient, q: str, key: str | None = None, **parameters: Any
) -> dict[str, Any]:
    headers = {} if key is None else {"x-api-key": key}
    answer = await client.get("/v1/search", params={"q": q, **parameters}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refs(found: dict[str, Any]) -> list[str]:
    return [item["ref"] for item in found["items"]]


def by(item: dict[str, Any]) -> dict[str, int]:
    return {match["by"]: match["rank"] for match in item["matches"]}


async def test_meaning_finds_what_no_word_does(caller: httpx.AsyncClient) -> None:
    found = await find(caller, "bodies of fresh water", mode="semantic")
    assert refs(found)[0] == "tiny/1-res-test/0"
    assert found["embedding_model"] == MODEL
    assert found["note"] is None
    assert found["next_cursor"] is None
    best = found["items"][0]
    assert best["explanation"]["text"] == "rivers and lakes"
    assert best["explanation"]["best_score"] == 0.9
    assert best["matches"][0]["similarity"] > 0.4
    assert refs(await find(caller, "bodies of fresh water", mode="keyword")) == []
    # a control: another meaning is nearer to another feature
    assert refs(await find(caller, "sailing a boat", mode="semantic"))[0] == "tiny/1-res-test/1"
    assert refs(await find(caller, "parentheses", mode="semantic"))[0] == "tiny/1-res-test/2"


async def test_words_are_stemmed_and_quotes_and_minus_work(caller: httpx.AsyncClient) -> None:
    assert refs(await find(caller, "sailor", mode="keyword")) == ["tiny/1-res-test/1"]
    assert refs(await find(caller, '"closing brackets"', mode="keyword")) == ["tiny/1-res-test/2"]
    assert refs(await find(caller, '"brackets closing"', mode="keyword")) == []
    assert "other/1-res/5" not in refs(await find(caller, "rivers -canals", mode="keyword"))
    assert refs(await find(caller, "brackets or sailors", mode="keyword", limit=2)) == [
        "tiny/1-res-test/1",
        "tiny/1-res-test/2",
    ]


async def test_tokens_are_found_and_the_first_promoted_comes_first(caller: httpx.AsyncClient) -> None:
    found = await find(caller, "River", mode="keyword", model="tiny")
    token_only = [item for item in found["items"] if "tokens" in by(item)]
    assert [item["index"] for item in token_only] == [7, 8]
    assert token_only[0]["explanation"] is None
    assert token_only[0]["peak_tokens"] == [{"id": 3, "token": " river"}]
    # a word of a longer query is a token too, but a short one is not
    assert "tiny/1-res-test/7" in refs(await find(caller, "by the river bank"))
    assert refs(await find(caller, "42 the", mode="keyword")) == []


async def test_a_hybrid_search_fuses_the_lists(caller: httpx.AsyncClient) -> None:
    found = await find(caller, "river")
    ranks = {item["ref"]: by(item) for item in found["items"]}
    assert {"meaning", "words"} <= set(ranks["tiny/1-res-test/0"])
    assert set(ranks["tiny/1-res-test/7"]) == {"tokens"}
    for item in found["items"]:
        assert item["score"] == pytest.approx(sum(1 / (60 + rank) for rank in by(item).values()), abs=1e-6)
    scores = [item["score"] for item in found["items"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(refs(found))) == len(found["items"])


async def test_an_exact_name_finds_that_feature_alone(caller: httpx.AsyncClient) -> None:
    for name in ("tiny/1-res-test/4", "http://host/v1/models/tiny/saes/1-res-test/features/4"):
        found = await find(caller, name)
        assert refs(found) == ["tiny/1-res-test/4"]
        assert by(found["items"][0]) == {"ref": 1}
    for name in ("tiny/1-res-test/40", "tiny/1-res-test/99999999999999999999"):
        assert refs(await find(caller, name)) == []
    assert refs(await find(caller, "tiny/1-res-test/4", model="other")) == []
    assert ref_of("and/or") is None


async def test_a_date_is_no_name_of_a_feature(
    caller: httpx.AsyncClient, explained: Explained, settings_of_search: DatabaseSettings
) -> None:
    database = Database(settings_of_search)
    said = NewExplanation(3, "the attacks of 9/11/2001", HUMAN, explained.world.account_id)
    async with database.write() as session:
        (added,) = await add_explanations(session, explained.world.sae_id, [said])
    for mode in ("hybrid", "keyword"):
        assert refs(await find(caller, "9/11/2001", mode=mode))[0] == "tiny/1-res-test/3"
    async with database.write() as session:
        await session.execute(delete(Explanation).where(Explanation.id == added))
    await database.dispose()
    assert ref_of("9/11/2001") is not None


async def test_private_and_unlisted_saes_stay_out(caller: httpx.AsyncClient, explained: Explained) -> None:
    hidden, unlisted = "tiny/2-hidden/0", "tiny/3-unlisted/0"
    for mode in ("hybrid", "semantic", "keyword"):
        assert not {hidden, unlisted} & set(refs(await find(caller, "rivers", mode=mode)))
        assert not {hidden, unlisted} & set(
            refs(await find(caller, "rivers", explained.reader_key, mode=mode))
        )
        assert {hidden, unlisted} <= set(refs(await find(caller, "rivers", explained.guest_key, mode=mode)))
    # who may not see it is told what is told of an SAE that is not there
    assert hidden not in refs(await find(caller, hidden))
    assert refs(await find(caller, hidden, mode="keyword")) == []
    assert refs(await find(caller, "tiny/2-none/0", mode="keyword")) == []
    assert refs(await find(caller, hidden, explained.guest_key)) == [hidden]
    # an unlisted one is found where it is named, as its own page is
    assert refs(await find(caller, "rivers", model="tiny", sae="3-unlisted"))[:1] == [unlisted]
    denied = await caller.get("/v1/search", params={"q": "rivers", "model": "tiny", "sae": "2-hidden"})
    assert denied.status_code == 404


async def test_filters_hold_in_every_list(caller: httpx.AsyncClient, explained: Explained) -> None:
    for mode in ("hybrid", "semantic", "keyword"):
        other = await find(caller, "rivers", mode=mode, model="other")
        assert {item["model"] for item in other["items"]} == {"other"}
        guests = await find(caller, "rivers", mode=mode, author="guest")
        assert {item["explanation"]["author"] for item in guests["items"]} == {"guest"}
        released = await find(caller, "river", mode=mode, release="first")
        assert {item["sae"] for item in released["items"]} == {"1-res-test"}
        scored = await find(caller, "river", mode=mode, min_score=0.8)
        assert refs(scored) == ["tiny/1-res-test/0"]
        assert refs(await find(caller, "river", mode=mode, min_score=0.95)) == []
        for item in (await find(caller, "river", mode=mode, min_density=0.1))["items"]:
            assert item["density"] >= 0.1
        assert refs(await find(caller, "river", mode=mode, max_density=0.0, model="other")) == []
    assert refs(await find(caller, "tiny/1-res-test/4", author="guest")) == []
    del explained


BAD = [
    {"q": ""},
    {"q": "   "},
    {"q": "x" * 501},
    {"q": "\x00"},
    {"q": "a", "mode": "fuzzy"},
    {"q": "a", "limit": 0},
    {"q": "a", "limit": 101},
    {"q": "a", "sae": "1-res-test"},
    {"q": "a", "author": "nobody"},
    {"q": "a", "author": "a\x00b"},
    {"q": "x" * 50_000},
    {"q": "a", "min_score": "nan"},
    {"q": "a", "min_density": 0.5, "max_density": 0.1},
    {"q": "a", "minimum": 1},
    {},
]


@pytest.mark.parametrize("parameters", BAD, ids=lambda value: str(value)[:40])
async def test_bad_parameters_name_themselves(caller: httpx.AsyncClient, parameters: dict[str, Any]) -> None:
    answer = await caller.get("/v1/search", params=parameters)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({"model": "no"}, "model-not-found"),
        ({"model": "tiny", "sae": "no"}, "sae-not-found"),
        ({"release": "no"}, "release-not-found"),
    ],
)
async def test_what_is_not_there_is_404(
    caller: httpx.AsyncClient, parameters: dict[str, str], kind: str
) -> None:
    answer = await caller.get("/v1/search", params={"q": "a", **parameters})
    assert answer.status_code == 404
    assert answer.json()["type"].endswith(kind)


@pytest.mark.parametrize(
    "q",
    [
        "&|!<>():*",
        "' OR 1=1 --",
        '"',
        "-",
        "or or",
        "%_\\",
        "😀",
        "the",
        "\u202eabc",
        "a:b$1",
        ":query",
        "(((",
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "keyword", "semantic"])
async def test_odd_queries_are_answered(caller: httpx.AsyncClient, q: str, mode: str) -> None:
    await find(caller, q, mode=mode)


async def test_the_answer_has_an_etag_and_is_private_with_a_key(
    caller: httpx.AsyncClient, explained: Explained
) -> None:
    first = await caller.get("/v1/search", params={"q": "rivers"})
    again = await caller.get(
        "/v1/search", params={"q": "rivers"}, headers={"if-none-match": first.headers["etag"]}
    )
    assert again.status_code == 304
    assert first.headers["cache-control"].startswith("public")
    own = await caller.get("/v1/search", params={"q": "rivers"}, headers={"x-api-key": explained.guest_key})
    assert own.headers["cache-control"].startswith("private")


async def test_without_an_embedder_words_are_found_and_the_answer_says_so(
    explained: Explained, settings_of_search: DatabaseSettings, tmp_path: Path
) -> None:
    del explained
    tries: list[int] = []

    def load() -> Embedder:
        tries.append(1)
        raise EmbeddingUnavailable("The encoder is not installed.")

    async with calling(app_with(settings_of_search, tmp_path, load)) as client:
        found = await find(client, "rivers")
        assert "tiny/1-res-test/0" in refs(found)
        assert found["embedding_model"] is None
        assert "not installed" in found["note"]
        refused = await client.get("/v1/search", params={"q": "rivers", "mode": "semantic"})
        assert refused.status_code == 503
        assert "not installed" in refused.json()["detail"]
        assert (await find(client, "rivers", mode="keyword"))["note"] is None
    assert len(tries) == 1, "what failed is not tried again at once"


async def test_vectors_of_another_model_are_not_compared(
    settings_of_search: DatabaseSettings, explained: Explained, tmp_path: Path, minilm: MiniLM
) -> None:
    class Other:
        model = "another"
        embed, close = minilm.embed, minilm.close

    async with calling(app_with(settings_of_search, tmp_path, Other)) as client:
        assert refs(await find(client, "rivers", mode="semantic")) == []
    del explained


async def test_one_feature_with_many_texts_comes_once(
    caller: httpx.AsyncClient, settings_of_search: DatabaseSettings, explained: Explained, minilm: MiniLM
) -> None:
    texts = [f"glaciers, number {number}" for number in range(5)]
    database = Database(settings_of_search)
    async with database.write() as session:
        rows = [
            NewExplanation(
                20, one, HUMAN, explained.world.account_id, embedding=vector, embedding_model=MODEL
            )
            for one, vector in zip(texts, minilm.embed(texts), strict=True)
        ]
        rows.append(NewExplanation(21, "glaciers elsewhere", HUMAN, explained.world.account_id))
        ids = await add_explanations(session, explained.world.sae_id, rows)
    try:
        found = await find(caller, "glaciers number 3", mode="hybrid")
        assert refs(found)[0] == "tiny/1-res-test/20"
        assert found["items"][0]["explanation"]["text"] == "glaciers, number 3"
        assert refs(found).count("tiny/1-res-test/20") == 1
        # without a vector yet, by its words at once; and it is the second of the list of words, not the sixth
        second = next(item for item in (await find(caller, "glaciers"))["items"] if item["index"] == 21)
        assert by(second) == {"words": 1} or by(second) == {"words": 2}
    finally:
        async with database.write() as session:
            await session.execute(Explanation.__table__.delete().where(Explanation.id.in_(ids)))
        await database.dispose()


async def test_a_word_that_is_everywhere_is_ranked_from_a_capped_set(
    caller: httpx.AsyncClient, settings_of_search: DatabaseSettings, explained: Explained
) -> None:
    database = Database(settings_of_search)
    columns = "sae_id, feature_idx, text, method, account_id"
    async with database.write() as session:
        await session.execute(
            text(
                f"INSERT INTO explanation ({columns})"
                " SELECT :sae, i % 40, 'common words ' || i, 'x', :account FROM generate_series(1, 3000) i"
            ),
            {"sae": explained.world.sae_id, "account": explained.world.account_id},
        )
    try:
        found = await find(caller, "common words", mode="keyword", limit=100)
        assert len(found["items"]) == 40
    finally:
        async with database.write() as session:
            await session.execute(text("DELETE FROM explanation WHERE method = 'x'"))
        await database.dispose()


async def test_every_feature_with_a_common_token_is_not_read(
    caller: httpx.AsyncClient, explained: Explained
) -> None:
    found = await find(caller, "word0", limit=100)  # token 11, which nearly all features promote
    assert len(found["items"]) > 40
    del explained


async def test_embedding_again_is_a_job_of_ranges(
    settings_of_search: DatabaseSettings, explained: Explained, caller: httpx.AsyncClient, minilm: MiniLM
) -> None:
    refused = await caller.post("/v1/search/embeddings", headers={"x-api-key": explained.guest_key})
    assert refused.status_code == 403
    headers = {"x-api-key": explained.world.key, "idempotency-key": "once"}
    first = await caller.post("/v1/search/embeddings", headers=headers)
    again = await caller.post("/v1/search/embeddings", headers=headers)
    assert first.status_code == again.status_code == 202, first.text
    assert first.json() == again.json()
    job = first.json()["job"]
    assert (job["kind"], job["tasks"]["queued"]) == ("embed", 1)
    database = Database(settings_of_search)
    async with database.write() as session:
        await session.execute(update(Explanation).values(embedding_model="old"))
    context = task(database, first=1, last=3)
    assert (await EmbedExplanations(lambda: minilm)(context))["embedded"] == 3
    assert context.done == 100
    assert (await EmbedExplanations(lambda: minilm)(task(database)))["embedded"] == 4
    assert (await EmbedExplanations(lambda: minilm)(task(database)))["embedded"] == 0
    async with database.read() as session:
        models = set(await session.scalars(select(Explanation.embedding_model)))
    assert models == {MODEL}
    await database.dispose()


async def test_a_task_without_an_encoder_ends_well(
    settings_of_search: DatabaseSettings, explained: Explained
) -> None:
    del explained
    database = Database(settings_of_search)

    def load() -> Embedder:
        raise EmbeddingUnavailable("not here")

    assert (await EmbedExplanations(load)(task(database)))["embedding"] == "unavailable: not here"
    await database.dispose()


async def test_a_broken_surrogate_in_the_address_is_answered(caller: httpx.AsyncClient) -> None:
    answer = await caller.get("/v1/search?q=%ED%A0%80river%FF")
    assert answer.status_code == 200
    assert answer.json()["query"].endswith("river\ufffd")


async def test_a_refused_text_fails_alone_and_a_dead_endpoint_is_left_alone(minilm: MiniLM) -> None:
    class Moody:
        model = MODEL
        close = minilm.close
        asked = 0
        is_dead = False

        def embed(self, texts: list[str]) -> Any:
            self.asked += 1
            if self.is_dead:
                raise EmbeddingUnavailable("silence")
            if "refused" in texts:
                raise EmbeddingRefused("too long")
            return minilm.embed(texts)

    moody = Moody()
    vectors = TextVectors(lambda: moody, 10)
    texts = ["a", "refused", "b"]
    found = await asyncio.gather(*(vectors.vector(one) for one in texts), return_exceptions=True)
    assert [type(one).__name__ for one in found] == ["TextVector", "EmbeddingRefused", "TextVector"]
    assert (await vectors.vector("c")).model == MODEL
    moody.is_dead, moody.asked = True, 0
    for text_ in ("d", "e", "f"):
        with pytest.raises(EmbeddingUnavailable, match="silence"):
            await vectors.vector(text_)
    assert moody.asked == 1
    assert (await vectors.vector("a")).model == MODEL, "what is known needs no embedder"


async def test_waiting_texts_are_embedded_together_and_once(minilm: MiniLM) -> None:
    batches: list[list[str]] = []

    class Counting:
        model = MODEL
        close = minilm.close

        def embed(self, texts: list[str]) -> Any:
            batches.append(list(texts))
            return minilm.embed(texts)

    vectors = TextVectors(Counting, 2)
    asked = ["a", "b", "c", "a", "b"]
    found = await asyncio.gather(*(vectors.vector(one) for one in asked))
    assert (found[0].values == found[3].values).all()
    assert sum(map(len, batches)) == 3
    await vectors.vector("c")
    assert sum(map(len, batches)) == 3, "remembered"
    await vectors.vector("a")
    assert sum(map(len, batches)) == 4, "the oldest was forgotten"
    gone = asyncio.create_task(vectors.vector("d"))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await vectors.vector("d")).model == MODEL
    await vectors.aclose()
