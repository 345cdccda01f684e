"""Rows for tests: a catalogue with dashboards written by the real codec, small and without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sqlalchemy import insert, update

from interpedia_shared.auth import SCOPE_ADMIN, SCOPE_PUBLISH, new_key
from interpedia_shared.blobs import BlobStore, file_sha256
from interpedia_shared.dashboards import (
    HISTOGRAM_BINS,
    N_INTERVALS,
    REASON_RANDOM,
    REASON_TOP,
    Coactive,
    Examples,
    FeatureStats,
    Histogram,
    Ranked,
    encode_examples,
    encode_stats,
)
from interpedia_shared.db.models import (
    SAE,
    Account,
    APIKey,
    Context,
    Corpus,
    CorpusDocument,
    Explanation,
    Feature,
    LanguageModel,
    SAEVersion,
    Tokenizer,
)
from interpedia_shared.db.session import WriteSession
from interpedia_shared.tokens import Vocabulary, pack_ids

# Two halves of a character, a word with its space, a number, a quote: what token strings have to survive.
TOKENS: list[bytes] = [
    *(
        b"<|bos|>",
        b"the",
        b" the",
        b" river",
        b" lake",
        b"\xe2\x82",
        b"\xac",
        b"42",
        b"\n",
        b'"',
        b"</script>",
    ),
    *(f" word{number}".encode() for number in range(53)),
]
CONTEXT_LENGTH = 16
PROVENANCE: dict[str, Any] = {
    "model": {"source": {"kind": "tiny"}, "dtype": "float32"},
    "hook": "blocks.1.hook_resid_post",
    "hook_site": {"module": "model.layers.1", "side": "output", "normalise": None, "epsilon": None},
    "prepend_bos": True,
    "masking": "Not counted: BOS at position 0.",
    "final_norm_gain": True,
    "code_version": "0.1.0",
}


@dataclass
class World:
    """What `publish_world` made."""

    key: str
    account_id: int
    sae_id: int
    version_id: int
    corpus_id: int
    d_sae: int
    model: str = "tiny"
    sae: str = "1-res-test"
    stats: list[FeatureStats] = field(default_factory=list)
    examples: list[Examples] = field(default_factory=list)
    contexts: list[list[int]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Path of the SAE."""
        return f"/v1/models/{self.model}/saes/{self.sae}"


async def make_account(
    session: WriteSession, name: str = "owner", scopes: Sequence[str] = (SCOPE_PUBLISH, SCOPE_ADMIN)
) -> tuple[int, str]:
    """An account and its key."""
    key, prefix, digest = new_key()
    account = Account(name=name)
    session.add(account)
    await session.flush()
    session.add(APIKey(account_id=account.id, prefix=prefix, sha256=digest, scopes=list(scopes)))
    return account.id, key


async def make_model(
    session: WriteSession,
    model: str = "tiny",
    *,
    source: dict[str, Any] | None = None,
    tokens: Sequence[bytes] = TOKENS,
) -> str:
    """A model with a tokenizer of its own; returns the tokenizer's hash."""
    tokenizer_hash = hashlib.sha256(f"tokenizer of {model}".encode()).hexdigest()
    session.add(Tokenizer(hash=tokenizer_hash, vocabulary=Vocabulary(tokens).pack(), size=len(tokens)))
    await session.flush()
    session.add(
        LanguageModel(
            id=model,
            name=model.title(),
            source=source or {"kind": "tiny"},
            shape={"n_layers": 4, "d_model": 8, "architecture": "llama"},
            provenance={"source": source or {"kind": "tiny"}, "dtype": "float32"},
            tokenizer_hash=tokenizer_hash,
            bos_token_id=0,
            licence="Apache-2.0",
        )
    )
    await session.flush()
    return tokenizer_hash


async def make_corpus(
    session: WriteSession,
    account_id: int,
    tokenizer_hash: str,
    contexts: Sequence[Sequence[int]],
    slug: str = "texts",
) -> int:
    """A corpus of these contexts, all cut from one document."""
    corpus = Corpus(
        slug=slug,
        name="Texts",
        account_id=account_id,
        tokenizer_hash=tokenizer_hash,
        context_length=len(contexts[0]),
        prepend_bos=True,
        token_width=2,
        n_contexts=len(contexts),
        n_tokens=sum(map(len, contexts)),
        n_documents=1,
        digest="d" * 64,
        provenance={"file": "texts.jsonl"},
        state="ready",
    )
    session.add(corpus)
    await session.flush()
    session.add(
        CorpusDocument(corpus_id=corpus.id, idx=0, name="A walk", source="Our own", licence="CC0-1.0")
    )
    session.add_all(
        Context(
            corpus_id=corpus.id,
            idx=number,
            tokens=pack_ids(list(ids), 2),
            document_idx=0,
            token_offset=number * (len(ids) - 1),
        )
        for number, ids in enumerate(contexts)
    )
    await session.flush()
    return corpus.id


async def make_sae(session: WriteSession, account_id: int, *, d_sae: int, **fields: Any) -> int:
    """An SAE without dashboards; `fields` replace columns."""
    columns: dict[str, Any] = {
        "model_id": "tiny",
        "slug": "1-res-test",
        "account_id": account_id,
        "title": "Test SAE",
        "architecture": "standard",
        "hook": "blocks.1.hook_resid_post",
        "layer": 1,
        "d_in": 8,
        "d_out": 8,
        "d_sae": d_sae,
        "config": {"architecture": "standard", "d_in": 8, "d_sae": d_sae},
        "state": "building",
    }
    row = SAE(**{**columns, **fields})
    session.add(row)
    await session.flush()
    return row.id


async def make_version(
    session: WriteSession, sae_id: int, corpus_id: int, *, publish: bool = True, **fields: Any
) -> int:
    """A build of an SAE; by default published and current."""
    columns: dict[str, Any] = {
        "sae_id": sae_id,
        "corpus_id": corpus_id,
        "state": "ready" if publish else "building",
        "settings": {"k_top": 20},
        "provenance": PROVENANCE,
        "summary": {"n_alive": 1},
        "digest": "e" * 64,
        "code_version": "0.1.0",
        "n_contexts": 4,
        "n_tokens": 60,
        "published_at": datetime.now(UTC) if publish else None,
    }
    version = SAEVersion(**{**columns, **fields})
    session.add(version)
    await session.flush()
    if publish:
        await session.execute(
            update(SAE).where(SAE.id == sae_id).values(current_version_id=version.id, state="ready")
        )
    return version.id


def make_stats(index: int, d_sae: int, rng: np.random.Generator) -> FeatureStats:
    """Numbers of one feature; every tenth is dead."""
    ranked = Ranked(
        ids=rng.choice(len(TOKENS), 5, replace=False).astype(np.uint32),
        values=np.sort(rng.normal(size=5))[::-1].astype(np.float32),
    )
    if index % 10 == 9:
        return FeatureStats(top_logits=ranked, bottom_logits=ranked)
    values = rng.gamma(2.0, 3.0, size=20)
    others = np.array([(index + step) % d_sae for step in (1, 2, 3)], np.uint32)
    return FeatureStats(
        n_active_tokens=len(values),
        n_active_contexts=3,
        activation_sum=float(values.sum()),
        activation_sum_squares=float((values**2).sum()),
        min_activation=float(values.min()),
        max_activation=float(values.max()),
        interval_counts=np.arange(N_INTERVALS, dtype=np.uint32),
        activation_histogram=Histogram(
            float(values.min()), float(values.max()), np.arange(HISTOGRAM_BINS, dtype=np.uint32)
        ),
        logit_histogram=Histogram(-1.0, 1.0, np.ones(HISTOGRAM_BINS, np.uint32)),
        top_logits=ranked,
        bottom_logits=ranked,
        cosine_neighbours=Ranked(ids=others, values=np.array([0.9, 0.5, 0.25], np.float32)),
        coactive=Coactive(
            ids=others[:2], pearson=np.array([0.75, 0.5], np.float32), counts=np.array([7, 3], np.uint32)
        ),
    )


def make_examples(stats: FeatureStats, n_contexts: int) -> Examples:
    """A top example, one of the fourth interval that repeats it, and a silent one."""
    if stats.n_active_tokens == 0:
        return Examples.empty()
    top = stats.max_activation
    return Examples(
        contexts=np.array([0, 1 % n_contexts, 2 % n_contexts], np.uint32),
        reasons=np.array([REASON_TOP, 4, REASON_RANDOM], np.uint8),
        repeats=np.array([False, True, False]),
        offsets=np.array([0, 2, 3, 3], np.uint32),
        positions=np.array([3, 5, 2], np.uint16),
        values=np.array([top, top / 2, top * 0.7], np.float32),
    )


def feature_row(
    version_id: int, index: int, stats: FeatureStats, examples: Examples, contexts: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """A row of `feature`, its blobs written by the codec."""
    is_alive = stats.n_active_tokens > 0
    return {
        "sae_version_id": version_id,
        "idx": index,
        "density": stats.n_active_tokens / 60,
        "n_active_tokens": stats.n_active_tokens,
        "max_activation": stats.max_activation,
        "mean_activation": stats.activation_sum / stats.n_active_tokens if is_alive else 0.0,
        "peak_context": 0 if is_alive else None,
        "peak_position": 3 if is_alive else None,
        "top_logit_ids": stats.top_logits.ids.tolist(),
        "peak_token_ids": [contexts[0][3]] if is_alive else [],
        "stats": encode_stats(stats),
        "examples": encode_examples(examples),
    }


def make_weights(store: BlobStore, *, d_in: int, d_sae: int, dtype: Any = np.float32) -> tuple[str, str, int]:
    """A safetensors file in the blob store: (uri, sha256, bytes). Entry [i, j] of W_dec is i + j / 100."""
    w_dec = (np.arange(d_sae)[:, None] + np.arange(d_in)[None, :] / 100).astype(dtype)
    scratch = store.root / "scratch.safetensors"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            "W_dec": w_dec,
            "W_enc": np.ascontiguousarray(-w_dec.T),
            "b_enc": np.zeros(d_sae, dtype),
            "b_dec": np.zeros(d_in, dtype),
        },
        scratch,
    )
    digest, size = file_sha256(scratch), scratch.stat().st_size
    return store.adopt(scratch, digest), digest, size


def random_contexts(count: int, seed: int = 0) -> list[list[int]]:
    """Contexts of CONTEXT_LENGTH tokens with a BOS; in the first a character is split over two tokens."""
    rng = np.random.default_rng(seed)
    rows = [[0, *rng.integers(1, len(TOKENS), CONTEXT_LENGTH - 1).tolist()] for _ in range(count)]
    rows[0][1:4] = [5, 6, 3]
    return rows


async def publish_world(session: WriteSession, data_dir: Path, *, d_sae: int = 40, seed: int = 0) -> World:
    """One public SAE with dashboards of all its features, its weights on disk, and one explanation."""
    account_id, key = await make_account(session)
    contexts = random_contexts(4)
    corpus_id = await make_corpus(session, account_id, await make_model(session), contexts)
    uri, sha256, size = make_weights(BlobStore(data_dir / "blobs"), d_in=8, d_sae=d_sae)
    sae_id = await make_sae(
        session, account_id, d_sae=d_sae, weights_uri=uri, weights_sha256=sha256, weights_bytes=size
    )
    version_id = await make_version(session, sae_id, corpus_id)
    world = World(key, account_id, sae_id, version_id, corpus_id, d_sae, contexts=contexts)
    await fill_version(session, world, version_id, seed=seed)
    session.add(
        Explanation(sae_id=sae_id, feature_idx=3, text="rivers", method="human", account_id=account_id)
    )
    return world


async def fill_version(session: WriteSession, world: World, version_id: int, *, seed: int) -> None:
    """Rows of all features of a build; `world` remembers the numbers of the last one filled."""
    rng = np.random.default_rng(seed)
    world.stats = [make_stats(index, world.d_sae, rng) for index in range(world.d_sae)]
    world.examples = [make_examples(stats, len(world.contexts)) for stats in world.stats]
    rows = [
        feature_row(version_id, index, world.stats[index], world.examples[index], world.contexts)
        for index in range(world.d_sae)
    ]
    await session.execute(insert(Feature), rows)
