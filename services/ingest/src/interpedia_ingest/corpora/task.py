"""The task that tokenises a corpus. One transaction, so that a crash leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from interpedia_engine.errors import EngineError
from interpedia_engine.models import ModelSource
from interpedia_ingest.copying import allow_long_statements
from interpedia_ingest.corpora import repository
from interpedia_ingest.corpora.documents import BadDocument, DocumentReader, Limits
from interpedia_ingest.corpora.service import KIB
from interpedia_ingest.corpora.windows import Batch, Window, batches
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.refusals import refuse, refuse_engine
from interpedia_ingest.shelf import Shelf
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import Corpus, LanguageModel
from interpedia_shared.db.session import WriteSession
from interpedia_shared.jobs.context import TaskContext
from interpedia_shared.jobs.errors import TaskFailed
from interpedia_shared.problems import BadModel, BadUpload, Invalid


@dataclass(slots=True)
class _Totals:
    documents: int = 0
    contexts: int = 0
    tail_tokens: int = 0
    short_documents: int = 0
    licences: Counter[str] = field(default_factory=Counter[str])
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, batch: Batch) -> None:
        self.documents += len(batch.documents)
        self.contexts += len(batch.contexts)
        self.tail_tokens += batch.n_tail_tokens
        self.short_documents += batch.n_short_documents
        self.licences.update(document.licence for document in batch.documents)
        for packed, _, _ in batch.contexts:
            self.digest.update(packed)

    def provenance(self) -> JSON:
        return {
            "n_tail_tokens_dropped": self.tail_tokens,
            "n_documents_without_context": self.short_documents,
            "licences": dict(sorted(self.licences.items())),
        }


class TokenizeCorpus:
    """Handler of `tokenize_corpus`."""

    def __init__(self, shelf: Shelf, folder: DataFolder) -> None:
        self._shelf = shelf
        self._folder = folder

    async def __call__(self, context: TaskContext) -> JSON:
        """Tokenise the whole file and make the corpus ready. Again changes nothing.

        Raises:
            TaskFailed: a line is no document, the text gives no context, or the corpus was ordered again.
        """
        async with context.database.read() as session:
            corpus = await session.get(Corpus, context.params["corpus_id"])
            model = await session.get(LanguageModel, context.params["model"])
        if corpus is None or model is None:
            raise TaskFailed("The corpus or its model was deleted.")
        if corpus.state == "ready":
            return _result(corpus)
        try:
            loaded = await self._shelf.model(ModelSource.from_dict(model.source))
        except EngineError as error:
            raise TaskFailed.from_problem(refuse_engine(BadModel, "#/model", error)) from error
        window = Window.of(loaded, context_length=corpus.context_length, prepend_bos=corpus.prepend_bos)
        settings = self._shelf.settings
        reader = DocumentReader(
            self._folder.blobs.path(context.params["uri"]),
            is_xz=str(corpus.provenance["file"]).endswith(".xz"),
            limits=Limits(file=settings.max_corpus_bytes, line=settings.max_line_bytes),
        )
        async with context.database.write() as session:
            await allow_long_statements(session)
            locked = await repository.lock(session, corpus.id)
            if locked is None or locked.state == "ready":
                return _result(locked or corpus)
            if locked.job_id != context.job_id:
                # Whatever this job was ordered with, the corpus may have other text and settings by now.
                raise TaskFailed(
                    f"Corpus '{locked.slug}' was ordered again, by job {locked.job_id}.",
                    type="conflict",
                    title="Conflict",
                )
            await repository.clear(session, corpus.id)
            totals = await _write(session, context, locked.id, reader, batches(reader, loaded, window))
            _finish(locked, totals)
            return _result(locked)


async def _write(
    session: WriteSession,
    context: TaskContext,
    corpus_id: int,
    reader: DocumentReader,
    source: Iterator[Batch],
) -> _Totals:
    totals = _Totals()
    while True:
        context.check()
        try:
            batch = await asyncio.to_thread(next, source, None)
        except BadDocument as error:
            refusal = refuse(BadUpload, "#/upload", f"line {error.line}: {error.fact}", line=error.line)
            raise TaskFailed.from_problem(refusal) from error
        if batch is None:
            return totals
        await repository.add_documents(session, corpus_id, batch.documents, first=totals.documents)
        await repository.add_contexts(session, corpus_id, batch.contexts, first=totals.contexts)
        await asyncio.to_thread(totals.add, batch)
        context.report(min(context.weight, reader.bytes_read // KIB))


def _finish(corpus: Corpus, totals: _Totals) -> None:
    if totals.contexts == 0:
        fact = f"no document of {totals.documents} gives a whole context of {corpus.context_length} tokens"
        raise TaskFailed.from_problem(refuse(Invalid, "#/upload", fact))
    repository.mark_ready(
        corpus,
        digest=totals.digest.hexdigest(),
        provenance=totals.provenance(),
        n_contexts=totals.contexts,
        n_tokens=totals.contexts * corpus.context_length,
        n_documents=totals.documents,
    )


def _result(corpus: Corpus) -> JSON:
    return {
        "corpus": corpus.slug,
        "n_contexts": corpus.n_contexts,
        "n_tokens": corpus.n_tokens,
        "n_documents": corpus.n_documents,
        "digest": corpus.digest,
    }
