"""The whole autointerp service on a made-up SAE: API and live model on sockets, workers, a scripted LLM."""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interpedia_autointerp.app import create_app
from interpedia_autointerp.llm import LLMSettings
from interpedia_autointerp.orders.making import QUEUE
from interpedia_autointerp.settings import AutointerpSettings
from interpedia_autointerp.worker import make_handlers
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.db.models import Context, CorpusDocument, Feature
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.jobs import Worker
from interpedia_shared.settings import DatabaseSettings
from tests.support.factories import feature_row, make_account, make_corpus, make_model, make_sae, make_version
from tests.support.forking import ForkedProcess
from tests.support.jobs import PATIENCE_S, QUICK, show, until
from tests.support.made_up import LENGTH, WORDS, MadeUp, Rule, never_rule
from tests.support.rule_judge import RuleJudge, last_json, rule
from tests.support.scripted_llm import MODEL, Body, Reply, Script, scripted
from tests.support.serving import serving

SAE = "tiny/1-res"
N_FEATURES = 12
DEAD, SCARCE = 10, 11


def word_rule(number: int) -> Rule:
    """Fires on `word<number>`; how strongly depends on the word before."""

    def values(ids: Sequence[int]) -> list[float]:
        return [
            1.0 + (ids[at - 1] * 7 % 90) / 10 if at and token == 4 + number else 0.0
            for at, token in enumerate(ids)
        ]

    return values


def rule_of(index: int) -> Rule:
    """The rule of a feature of the world."""
    return never_rule if index == DEAD else word_rule(index)


@dataclass
class Explained:
    """What `publish` made."""

    key: str
    account_id: int
    sae_id: int
    version_id: int


async def publish(session: WriteSession, n_features: int = N_FEATURES) -> Explained:
    """A corpus of 120 documents and an SAE whose feature n fires on word n; one is dead, one is scarce."""
    world = MadeUp()
    account_id, key = await make_account(session)
    tokenizer = await make_model(session, tokens=WORDS)
    contexts = [passage.ids.tolist() for passage in world.passages]
    corpus_id = await make_corpus(session, account_id, tokenizer, contexts)
    session.add_all(
        CorpusDocument(corpus_id=corpus_id, idx=n, name=f"Text {n}", source="Ours", licence="CC0-1.0")
        for n in range(1, world.n_documents)
    )
    await session.flush()
    for passage in world.passages:
        row = await session.get(Context, (corpus_id, passage.index))
        assert row is not None
        row.document_idx = passage.document
    sae_id = await make_sae(session, account_id, d_sae=n_features, slug="1-res")
    version_id = await make_version(
        session, sae_id, corpus_id, n_contexts=len(contexts), n_tokens=len(contexts) * (LENGTH - 1)
    )
    rows = []
    for index in range(n_features):
        most = 3 if index == SCARCE else 10**6
        stats, examples = world._stored(rule_of(index), 12, 4, most)
        rows.append(feature_row(version_id, index, stats, examples, contexts))
    await session.execute(insert(Feature), rows)
    return Explained(key, account_id, sae_id, version_id)


@dataclass
class LiveModel:
    """Speaks `POST /v1/activations` as the gateway does; the features are the rules of the world."""

    requests: int = 0
    busy: int = 0
    is_open: bool = True

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/activations", self.activations, methods=["POST"])])

    async def activations(self, request: Request) -> Response:
        body = await request.json()
        self.requests += 1
        while not self.is_open:  # noqa: ASYNC110 it is opened from another thread
            await asyncio.sleep(0.01)
        if self.busy:
            self.busy -= 1
            return JSONResponse({"detail": "busy"}, 429, {"retry-after": "0"})
        texts = body.get("texts") or []
        if any("too long" in text for text in texts):
            return JSONResponse({"detail": "#/texts/0: has 9999 tokens, the limit is 4096."}, 422)
        rows = body.get("token_ids") or [[0, *_ids(text)] for text in texts]
        index = body["features"][0]["feature"]
        return JSONResponse({"results": [_result(row, index) for row in rows]})


def _ids(text: str) -> list[int]:
    """Words of the vocabulary; others are a word that no feature fires on."""
    known = {word.decode().strip(): number for number, word in enumerate(WORDS)}
    return [known.get(word, len(WORDS) - 1) for word in re.findall(r"\w+", text.lower())]


def _result(row: list[int], index: int) -> dict[str, Any]:
    values: list[float | None] = list(rule_of(index)(row))
    if row[0] == 0:
        values[0] = None
    names = {"ref": f"{SAE}/{index}", "model": "tiny", "sae": "1-res", "index": index}
    one = {**names, "values": values, "max": None, "max_position": None, "max_token": None}
    tokens = [WORDS[token].decode() for token in row]
    return {"tokens": tokens, "token_ids": row, "features": [one], "vectors": [], "saes": []}


@dataclass
class Author:
    """Explains by the word that is marked most; writes attacks with it; judges by the rule it wrote."""

    judge: RuleJudge = field(default_factory=RuleJudge)

    def __call__(self, body: Body) -> Reply | str:
        system = body["messages"][0]["content"]
        data = last_json(body["messages"][-1]["content"]) or {}
        if "active" in data:
            return _hypothesis(_word(data))
        if "tested" in data:
            strong = Counter(each["token"].strip() for each in data["tested"] if each["strength"] > 0)
            return _hypothesis(strong.most_common(1)[0][0] if strong else "nothing")
        if "claim" in data:
            return _attack(system, data)
        return self.judge(body)


def _word(data: dict[str, Any]) -> str:
    first, last = map(re.escape, data["marks"])
    found = Counter(
        word.strip() for each in data["active"] for word in re.findall(f"{first}(.*?){last}", each["text"])
    )
    return found.most_common(1)[0][0]


def _hypothesis(word: str) -> str:
    found = {
        "explanation": f"the word {word} {rule(any=[word])}",
        "role": "input",
        "trigger": "token",
        "position": "at",
        "confidence": 0.9,
        "no_pattern": False,
    }
    return json.dumps(found)


def _attack(system: str, data: dict[str, Any]) -> str:
    """Texts with the words of the claim's rule, and without."""
    words = json.loads(re.findall(r"\[\[rule: (.*?)\]\]", data["claim"])[0])["any"]
    fresh = len(data["used"])
    # after these words the feature fires strongly
    texts = [f"word50 word5{9 - n % 4} {words[0]} word51 number {fresh + n}" for n in range(data["count"])]
    silent = [f"word50 word5{9 - n % 4} word49 word51 number {fresh + n}" for n in range(data["count"])]
    if "pairs of texts" in system:
        pairs = zip(texts, silent, strict=True)
        return json.dumps({"pairs": [{"with": f"so {one}", "without": f"so {two}"} for one, two in pairs]})
    if "look as if" in system:
        return json.dumps({"texts": [f"but {text}" for text in silent]})
    prefix = "roundabout" if "roundabout" in system else "plain"
    return json.dumps({"texts": [f"{prefix} {text}" for text in texts]})


def llm_of(url: str | None, **more: Any) -> LLMSettings:
    """One endpoint called default that is quick to try again; none without a URL."""
    if url is None:
        return LLMSettings(llm=None, llm_endpoints={})
    quick = {"backoff_s": 0.01, "max_attempts": 2, "timeout_s": 20.0, "model": MODEL, **more}
    return LLMSettings.model_validate({"llm": {"base_url": url, **quick}, "llm_endpoints": {}})


@dataclass
class Service:
    """A running service, as a client of it sees it."""

    client: httpx.AsyncClient
    database: Database
    database_settings: DatabaseSettings
    settings: AutointerpSettings
    llm: LLMSettings
    world: Explained
    script: Script
    live: LiveModel
    live_url: str
    url: str

    async def post(self, path: str, **body: Any) -> httpx.Response:
        """An order."""
        return await self.client.post(f"/v1/{path}", json=body)

    async def order(self, path: str, **body: Any) -> dict[str, Any]:
        """An accepted order."""
        answer = await self.post(path, **body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker in this process."""
        workshop = Workshop.open(self.settings, self.database, self.llm)
        worker = Worker(
            self.database_settings, make_handlers(workshop), queue=QUEUE, concurrency=2, timing=QUICK
        )
        stop = asyncio.Event()
        run = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(run, PATIENCE_S)
            await workshop.aclose()

    def process(self, folder: Path) -> ForkedProcess:
        """A worker that can be killed."""
        endpoint = self.llm.llm
        assert endpoint is not None
        environment = {
            **os.environ,
            "INTERPEDIA_DATABASE__URL": self.database_settings.url.get_secret_value(),
            "INTERPEDIA_LLM__BASE_URL": endpoint.base_url,
            "INTERPEDIA_LLM__MODEL": endpoint.model,
            "INTERPEDIA_LLM__CONCURRENCY": str(endpoint.concurrency),
            "INTERPEDIA_GATEWAY_URL": self.live_url,
            "INTERPEDIA_HEARTBEAT_TIMEOUT_S": "4",
        }
        return ForkedProcess(
            "interpedia_autointerp.worker", environment, folder / f"worker-{uuid.uuid4().hex[:6]}.log"
        )

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is."""
        return (await show(self.database, uuid.UUID(job_id))).model_dump(mode="json")

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended; its log is in the output."""

        async def there() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return job if job["state"] in {"succeeded", "failed", "cancelled"} else None

        return await until(there)


@asynccontextmanager
async def running(
    database: Database,
    database_settings: DatabaseSettings,
    *,
    script: Script | None = None,
    has_llm: bool = True,
    n_features: int = N_FEATURES,
    features_per_task: int = 4,
    **llm: Any,
) -> AsyncIterator[Service]:
    """The world, the scripted LLM, the live model and the API."""
    async with database.write() as session:
        world = await publish(session, n_features)
    script = script or Script(judge=Author())
    live = LiveModel()
    with scripted(script) as llm_url, serving(live.app()) as live_url:
        settings = AutointerpSettings(
            gateway_url=live_url, features_per_task=features_per_task, live_patience_s=3, pool_contexts=60
        )
        endpoints = llm_of(llm_url if has_llm else None, **llm)
        with serving(create_app(settings, database_settings, endpoints)) as url:
            headers = {"authorization": f"Bearer {world.key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
                yield Service(
                    client,
                    database,
                    database_settings,
                    settings,
                    endpoints,
                    world,
                    script,
                    live,
                    live_url,
                    url,
                )
        script.is_open = True
