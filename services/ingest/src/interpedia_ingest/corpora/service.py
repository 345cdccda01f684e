"""The rules of publishing corpora."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interpedia_ingest.corpora import repository
from interpedia_ingest.models import repository as models
from interpedia_ingest.refusals import refuse
from interpedia_ingest.uploads.complete import complete_files
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.publishing import CorpusAccepted, CorpusRequest
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Corpus, Job, LanguageModel, UploadFile
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs.plan import TaskSpec
from interpedia_shared.jobs.service import create_job, job_out
from interpedia_shared.problems import BadUpload, Conflict, Invalid
from interpedia_shared.tokens import token_width

KIND = "tokenize_corpus"
KIB = 1024


@dataclass(frozen=True, slots=True)
class _Order:
    request: CorpusRequest
    model: LanguageModel
    file: UploadFile

    @property
    def provenance(self) -> JSON:
        """What the corpus is made from: two corpora with the same are the same."""
        return {
            "file": self.file.name,
            "bytes": self.file.size,
            "sha256": self.file.sha256,
            "model": self.model.id,
            "tokenizer_hash": self.model.tokenizer_hash,
            "bos_token_id": self.model.bos_token_id if self.request.prepend_bos else None,
            "special_tokens": "spelled out as text",
        }


class CorpusService:
    """Takes orders for corpora; a worker tokenises them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(self, caller: Caller, request: CorpusRequest, once: Once) -> Answer:
        """Start the tokenisation of an upload: 202; or 200 when this corpus is ready already.

        Raises:
            Invalid: the model is unknown, or the contexts do not fit it.
            BadUpload: the upload is not a complete one of kind `corpus`.
            Conflict: the id belongs to another corpus.
        """
        kept = await once.replay(self._database)
        if kept is not None:
            return kept
        async with self._database.write() as session:
            kept = await once.claim(session)
            if kept is not None:
                return kept
            order = await _check(session, caller, request)
            await models.lock_name(session, "corpus", request.id)
            status, job = await self._find_or_start(session, caller, order)
            shown = None if job is None else await job_out(session, job)
            return await once.keep(session, Answer.of(status, CorpusAccepted(corpus=request.id, job=shown)))

    async def _find_or_start(
        self, session: WriteSession, caller: Caller, order: _Order
    ) -> tuple[int, Job | None]:
        corpus = await repository.find(session, order.request.id)
        if corpus is None:
            corpus = _new_corpus(caller, order)
            session.add(corpus)
            await session.flush()
        else:
            job = None if corpus.job_id is None else await session.get(Job, corpus.job_id)
            is_under_way = job is not None and job.state in {"queued", "running"}
            if not is_under_way:
                # A cancelled task may be about to finish. While a job runs, its task holds this lock.
                await session.refresh(corpus, with_for_update=True)
            if corpus.state == "ready" or is_under_way:
                _must_be_same(corpus, caller, order)
                return (200 if corpus.state == "ready" else 202), job
            _order_again(corpus, caller, order)
        job = await _start(session, caller, order, corpus.id)
        corpus.job_id, corpus.state = job.id, "building"
        return 202, job


async def _check(session: WriteSession, caller: Caller, request: CorpusRequest) -> _Order:
    model = await models.find(session, request.model)
    if model is None:
        raise refuse(Invalid, "#/model", f"no model '{request.model}' is registered here")
    if request.prepend_bos and model.bos_token_id is None:
        raise refuse(Invalid, "#/prepend_bos", f"the tokenizer of '{model.id}' has no BOS token")
    longest: Any = model.provenance.get("max_positions")
    if longest is not None and request.context_length > longest:
        detail = f"{request.context_length} tokens are more than the model's {longest}"
        raise refuse(Invalid, "#/context_length", detail, limits={"le": longest})
    files = await complete_files(
        session, caller.account_id, request.upload, kind="corpus", pointer="#/upload", problem=BadUpload
    )
    return _Order(request, model, files[0])


def _new_corpus(caller: Caller, order: _Order) -> Corpus:
    corpus = Corpus(
        slug=order.request.id,
        account_id=caller.account_id,
        n_contexts=0,
        n_tokens=0,
        n_documents=0,
        digest="",
        state="building",
    )
    _fill(corpus, order)
    return corpus


def _fill(corpus: Corpus, order: _Order) -> None:
    corpus.name = order.request.name
    corpus.tokenizer_hash = order.model.tokenizer_hash
    corpus.context_length = order.request.context_length
    corpus.prepend_bos = order.request.prepend_bos
    corpus.token_width = token_width(order.model.shape["d_vocab"])
    corpus.provenance = order.provenance


def _order_again(corpus: Corpus, caller: Caller, order: _Order) -> None:
    """Let the owner order other text under an id whose tokenisation failed: nothing points into it yet."""
    if corpus.account_id != caller.account_id or corpus.digest:
        _must_be_same(corpus, caller, order)
    _fill(corpus, order)


def _must_be_same(corpus: Corpus, caller: Caller, order: _Order) -> None:
    wanted = order.provenance
    same_text = all(corpus.provenance.get(name) == wanted[name] for name in ("sha256", "tokenizer_hash"))
    same_windows = (corpus.context_length, corpus.prepend_bos) == (
        order.request.context_length,
        order.request.prepend_bos,
    )
    if corpus.account_id != caller.account_id or not same_text or not same_windows:
        raise Conflict(
            f"Corpus '{corpus.slug}' exists with other text, tokenizer, contexts or owner. Take another id: "
            "examples point into it.",
            extensions={"corpus": corpus.slug},
        )


async def _start(session: WriteSession, caller: Caller, order: _Order, corpus_id: int) -> Job:
    request = order.request
    return await create_job(
        session,
        kind=KIND,
        account_id=caller.account_id,
        params={"corpus": request.id, "model": request.model},
        stages=["tokenize"],
        tasks=[
            TaskSpec(
                kind=KIND,
                stage=0,
                ordinal=0,
                params={"corpus_id": corpus_id, "model": request.model, "uri": order.file.uri},
                # Progress counts KiB of the file: how many documents it holds is only known at the end.
                weight=max(1, order.file.size // KIB),
            )
        ],
    )
