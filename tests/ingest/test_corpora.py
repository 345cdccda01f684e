"""Corpora: contexts as promised, and files that are not what they should be."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text

from interpedia_engine.models import LanguageModel, ModelSource, load_model
from interpedia_ingest.build.sweep import Sweeper
from interpedia_ingest.corpora.documents import BadDocument, DocumentReader, Limits
from interpedia_ingest.corpora.windows import Window, cut, tokenize_all
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.models import Context, Corpus, CorpusDocument, Job
from interpedia_shared.db.session import Database
from interpedia_shared.jobs import retry_job
from interpedia_shared.settings import DatabaseSettings
from interpedia_shared.tokens import unpack_ids
from tests.ingest.ingest_support import (
    CONTEXT_LENGTH,
    Researcher,
    assert_problem,
    documents,
    finished,
    ingesting,
    jsonl,
    new_researcher,
    row_counts,
    xz,
)

KEEPS_LIBRARY = True
LIMITS = Limits(file=1_000_000, line=100_000)


@pytest.fixture(scope="module")
def tiny(data_dir: Path) -> LanguageModel:
    return load_model(ModelSource(kind="tiny"), cache_dir=data_dir)


class TestContexts:
    async def test_they_are_the_documents_cut_into_windows(
        self, ready: Researcher, database: Database, tiny: LanguageModel
    ) -> None:
        async with database.read() as session:
            corpus = await session.scalar(select(Corpus).where(Corpus.slug == "words"))
            assert corpus is not None
            contexts = list(
                await session.scalars(
                    select(Context).where(Context.corpus_id == corpus.id).order_by(Context.idx)
                )
            )
            kept = list(
                await session.scalars(
                    select(CorpusDocument)
                    .where(CorpusDocument.corpus_id == corpus.id)
                    .order_by(CorpusDocument.idx)
                )
            )
        wanted: list[tuple[int, int, list[int]]] = []
        tails = 0
        for number, document in enumerate(documents(16)):
            ids = tiny.tokenize(document["text"], special_as_text=True)
            step = CONTEXT_LENGTH - 1
            for offset in range(0, len(ids) - step + 1, step):
                wanted.append((number, offset, [tiny.bos_id or 0, *ids[offset : offset + step]]))
            tails += len(ids) % step
        found = [
            (row.document_idx, row.token_offset, unpack_ids(row.tokens, corpus.token_width).tolist())
            for row in contexts
        ]
        assert found == wanted
        assert [row.idx for row in contexts] == list(range(len(wanted)))
        assert (corpus.n_contexts, corpus.n_tokens) == (len(wanted), len(wanted) * CONTEXT_LENGTH)
        assert corpus.digest == hashlib.sha256(b"".join(row.tokens for row in contexts)).hexdigest()
        assert corpus.provenance["n_tail_tokens_dropped"] == tails
        assert corpus.provenance["licences"] == {"Apache-2.0": 8, "CC0-1.0": 8}
        assert [(row.name, row.source) for row in kept] == [(f"doc-{k}", "made up") for k in range(16)]

    def test_a_document_that_names_a_special_token_gets_its_letters(self, tiny: LanguageModel) -> None:
        texts = ["<|im_start|>user", "plain", "", "é雨🙂 <|im_end|>"]
        assert tokenize_all(tiny, texts) == [tiny.tokenize(one, special_as_text=True) for one in texts]
        assert tokenize_all(tiny, texts)[0] != tiny.tokenize(texts[0])

    @pytest.mark.parametrize("n", [0, 1, 7, 8, 15, 16])
    def test_windows_do_not_overlap_and_tails_are_dropped(self, n: int) -> None:
        ids = np.arange(100, 100 + n, dtype=np.uint32)
        with_bos = cut(ids, Window(context_length=8, bos_id=1, width=2))
        assert with_bos.shape == (n // 7, 8)
        assert with_bos[:, 0].tolist() == [1] * (n // 7)
        assert with_bos[:, 1:].ravel().tolist() == ids[: n // 7 * 7].tolist()
        assert cut(ids, Window(context_length=8, bos_id=None, width=2)).shape == (n // 8, 8)

    async def test_compressed_is_the_same(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
    ) -> None:
        data = jsonl(documents(16))
        packed = xz(data[:5_000]) + b"\0\0\0\0" + xz(data[5_000:])
        answer = await ready.order_corpus(packed, corpus="packed", name="words.jsonl.xz")
        async with ingesting(database_settings, settings):
            job = await finished(database, answer.json())
        assert job.state == "succeeded", job.error
        async with database.read() as session:
            rows = await session.scalars(select(Corpus.digest).where(Corpus.slug.in_(("words", "packed"))))
            assert len(set(rows)) == 1


class TestAgain:
    async def test_the_same_corpus_is_not_tokenised_again(
        self, ready: Researcher, database: Database
    ) -> None:
        before = await row_counts(database, Job, Corpus, Context)
        same = await ready.order_corpus(jsonl(documents(16)))
        assert same.status_code == 200
        other = await ready.order_corpus(jsonl(documents(15)))
        assert (other.status_code, other.json()["corpus"]) == (409, "words")
        longer = await ready.order_corpus(jsonl(documents(16)), context_length=64)
        assert longer.status_code == 409
        assert await row_counts(database, Job, Corpus, Context) == before

    async def test_a_corpus_that_failed_can_be_ordered_again(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
    ) -> None:
        data = jsonl(documents(3))
        answer = await ready.order_corpus(data, corpus="mended")
        blob = DataFolder(settings).blobs.path(f"blob:{hashlib.sha256(data).hexdigest()}")
        blob.rename(blob.with_suffix(".away"))
        async with ingesting(database_settings, settings):
            assert (await finished(database, answer.json())).state == "failed"
            await Sweeper(database, DataFolder(settings), settings).sweep()
            async with database.read() as session:
                states = await session.scalars(select(Corpus.state).where(Corpus.slug == "mended"))
                assert list(states) == ["failed"]
            answer = await ready.order_corpus(data, corpus="mended")
            assert answer.status_code == 202
            assert (await finished(database, answer.json())).state == "succeeded"

    async def test_an_id_whose_first_text_failed_takes_another(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
    ) -> None:
        bad = (await ready.order_corpus(b"{}\n", corpus="burnt")).json()
        assert (await ready.order_corpus(jsonl(documents(4)), corpus="burnt")).status_code == 409
        other = await new_researcher(database, ready.http, "a-passer-by")
        async with ingesting(database_settings, settings):
            assert (await finished(database, bad)).state == "failed"
            theirs = await other.order_corpus(jsonl(documents(4)), corpus="burnt")
            assert theirs.status_code == 409
        good = await ready.order_corpus(jsonl(documents(4)), corpus="burnt", context_length=16)
        assert good.status_code == 202
        async with database.write() as session:
            await retry_job(session, bad["job"]["id"])
        async with ingesting(database_settings, settings):
            # Refused, or too late to do anything: either way the new text is what stays.
            await finished(database, bad)
            assert (await finished(database, good.json())).state == "succeeded"
        async with database.read() as session:
            found = await session.scalar(select(Corpus).where(Corpus.slug == "burnt"))
        assert found is not None
        assert (found.state, found.context_length, found.n_documents) == ("ready", 16, 4)


BAD_LINES: list[tuple[bytes, str, str]] = [
    (b'{"id": "a", "source": "s", "licence": "l"', "line 3", "not JSON"),
    (b"\xff\xfe", "line 3", "not JSON"),
    (b"[1, 2]", "line 3", "must be an object, not list"),
    (b'{"id": "a", "source": "s", "text": "t"}', "line 3", "'licence' is missing"),
    (b'{"id": 7, "source": "s", "licence": "l", "text": "t"}', "line 3", "'id' must be a string, not int"),
    (b'{"id": "", "source": "s", "licence": "l", "text": "t"}', "line 3", "it has 0"),
    (b'{"id": "a\\u0000", "source": "s", "licence": "l", "text": "t"}', "line 3", "NUL"),
    (b'{"id": "a", "source": "s", "licence": "l", "text": "\\ud800"}', "line 3", "not JSON"),
]


class TestRefusals:
    @pytest.mark.parametrize(("line", "where", "fact"), BAD_LINES)
    def test_lines(self, tmp_path: Path, line: bytes, where: str, fact: str) -> None:
        path = tmp_path / "x.jsonl"
        path.write_bytes(jsonl(documents(2)) + line + b"\n" + jsonl(documents(1)))
        reader = DocumentReader(path, is_xz=False, limits=LIMITS)
        with pytest.raises(BadDocument) as caught:
            list(reader)
        assert f"line {caught.value.line}" == where
        assert fact in caught.value.fact

    async def test_a_bad_line_ends_the_job_and_nothing_is_kept(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
    ) -> None:
        before = await row_counts(database, Context, CorpusDocument)
        data = jsonl([*documents(100), {"id": "x", "source": "y", "licence": "z"}])
        answer = await ready.order_corpus(data, corpus="bad-line")
        async with ingesting(database_settings, settings):
            job = await finished(database, answer.json())
        assert job.state == "failed"
        assert job.error is not None
        assert (job.error["type"], job.error["line"]) == ("bad-upload", 101)
        assert job.error["errors"] == [{"field": "#/upload", "detail": "line 101: 'text' is missing"}]
        assert await row_counts(database, Context, CorpusDocument) == before

    async def test_a_corpus_without_a_single_context(
        self,
        ready: Researcher,
        database: Database,
        database_settings: DatabaseSettings,
        settings: IngestSettings,
    ) -> None:
        answer = await ready.order_corpus(jsonl(documents(3, repeat=0)[:1]), corpus="empty")
        async with ingesting(database_settings, settings):
            job = await finished(database, answer.json())
        assert job.error is not None
        assert "no document of 1 gives a whole context of 32 tokens" in job.error["detail"]
        sae = await ready.post(
            "/v1/saes",
            {
                "model": "tiny",
                "corpus": "empty",
                "name": "n",
                "hook": "hook_embed",
                "architecture": "identity",
            },
        )
        assert sae.status_code in (409, 422)

    def test_a_bomb_is_not_unpacked(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl.xz"
        path.write_bytes(lzma.compress(b"\n" * 50_000_000))
        reader = DocumentReader(path, is_xz=True, limits=LIMITS)
        with pytest.raises(BadDocument, match="more than 1000000 bytes"):
            list(reader)

    def test_a_line_without_end(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl.xz"
        path.write_bytes(lzma.compress(b"x" * 50_000_000))
        reader = DocumentReader(path, is_xz=True, limits=Limits(file=10**9, line=100_000))
        with pytest.raises(BadDocument, match="longer than 100000 bytes"):
            list(reader)

    @pytest.mark.parametrize("spoil", ["plain", "cut", "altered"])
    def test_damaged_xz(self, tmp_path: Path, spoil: str) -> None:
        data = jsonl(documents(5))
        packed = bytearray(xz(data))
        packed[len(packed) // 2] ^= 0xFF
        damaged = {"plain": data, "cut": xz(data)[:-20], "altered": bytes(packed)}[spoil]
        path = tmp_path / "x.jsonl.xz"
        path.write_bytes(damaged)
        with pytest.raises(BadDocument):
            list(DocumentReader(path, is_xz=True, limits=LIMITS))

    def test_the_control_reads(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl.xz"
        data = xz(b"\n" + jsonl(documents(5)).rstrip(b"\n"))
        path.write_bytes(data)
        reader = DocumentReader(path, is_xz=True, limits=LIMITS)
        assert [one.name for one in reader] == [f"doc-{k}" for k in range(5)]
        assert reader.bytes_read == len(data)

    async def test_orders_that_cannot_be(self, ready: Researcher, database: Database) -> None:
        data = jsonl(documents(2))
        before = await row_counts(database, Job, Corpus)
        unknown = await ready.order_corpus(data, corpus="x", model="no-such-model")
        assert_problem(unknown, 422, "invalid-request", "#/model", "no-such-model")
        long = await ready.order_corpus(data, corpus="x", context_length=1_024)
        assert_problem(long, 422, "invalid-request", "#/context_length", "512")
        body: dict[str, Any] = {"id": "x", "name": "X", "model": "tiny"}
        none = await ready.post("/v1/corpora", body | {"upload": "5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10"})
        assert_problem(none, 422, "bad-upload", "#/upload", "you have no upload")
        sae = await ready.upload("sae", {"cfg.json": b"{}", "w.safetensors": b"x"})
        kind = await ready.post("/v1/corpora", body | {"upload": sae})
        assert_problem(kind, 422, "bad-upload", "#/upload", "kind 'sae', not 'corpus'")
        still_open = await ready.open_upload("corpus", {"x.jsonl": data})
        open_one = await ready.post("/v1/corpora", body | {"upload": still_open["id"]})
        assert_problem(open_one, 422, "bad-upload", "#/upload", "is open")
        other = await new_researcher(database, ready.http, "somebody-else")
        theirs = await other.post("/v1/corpora", body | {"upload": still_open["id"]})
        assert_problem(theirs, 422, "bad-upload", "#/upload", "you have no upload")
        async with database.write() as session:
            await session.execute(text("UPDATE language_model SET bos_token_id = NULL"))
        no_bos = await ready.order_corpus(data, corpus="x")
        async with database.write() as session:
            await session.execute(text("UPDATE language_model SET bos_token_id = 1"))
        assert_problem(no_bos, 422, "invalid-request", "#/prepend_bos", "no BOS")
        assert await row_counts(database, Job, Corpus) == before
