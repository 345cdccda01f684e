"""A catalogue that live requests can be computed from: the tiny model, real SAE files, real densities."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import insert

from interpedia_engine.capture import capture
from interpedia_engine.hooks import Hook, ModelShape
from interpedia_engine.models import LanguageModel, ModelSource, load_model
from interpedia_engine.saes import SAE, SAEInfo, check_sae, load_sae, tiny_sae
from interpedia_ingest.saes.checks import canonical_config
from interpedia_shared.blobs import BlobStore
from interpedia_shared.dashboards import FeatureStats
from interpedia_shared.db.models import Feature, Tokenizer
from interpedia_shared.db.models import LanguageModel as ModelRow
from interpedia_shared.db.session import WriteSession
from interpedia_shared.tokens import Vocabulary
from tests.support.factories import (
    feature_row,
    make_account,
    make_corpus,
    make_examples,
    make_sae,
    make_version,
)

TEXTS = (
    "the cat and the dog was in the red house",
    "you have more time than the people of this city",
    "all rivers have water and light music is in the air",
    "which bird was that on the green tree by the river",
)
"""The corpus of the stored numbers."""


@dataclass(frozen=True)
class Dictionary:
    """One SAE of the world."""

    slug: str
    hook: Hook
    overrides: dict[str, Any]
    seed: int = 0
    has_build: bool = True
    visibility: str = "public"


DICTIONARIES = (
    Dictionary("0-res-topk", Hook("resid_post", 0), {}),
    Dictionary("1-res-std", Hook("resid_post", 1), {"architecture": "standard"}, 1),
    Dictionary("2-res-jump", Hook("resid_post", 2), {"architecture": "jumprelu"}, 2),
    Dictionary("2-tc", Hook("mlp_input", 2), {"architecture": "transcoder"}, 3),
    Dictionary("3-mlp-id", Hook("mlp_post", 3), {"architecture": "identity"}),
    Dictionary("1-bare", Hook("resid_post", 1), {"architecture": "standard"}, 4, has_build=False),
    Dictionary("1-private", Hook("resid_post", 1), {"architecture": "standard"}, 5, visibility="private"),
)


@dataclass
class LiveWorld:
    """What `publish_live_world` made, and the same objects to compute expected numbers with."""

    model: LanguageModel
    key: str
    account_id: int
    saes: dict[str, SAE] = field(default_factory=dict)
    infos: dict[str, SAEInfo] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of `feature`, by SAE and index."""
    model_id: str = "tiny"


@lru_cache(maxsize=1)
def tiny_model() -> LanguageModel:
    """The tiny model, loaded once for all tests of a run."""
    return load_model(ModelSource("tiny"), cache_dir="unused")


async def publish_live_world(session: WriteSession, data_dir: Path) -> LiveWorld:
    """The tiny model with SAEs of several architectures; all but `1-bare` have a published build.

    Args:
        session: Of a database with the schema and no rows.
        data_dir: Weights go to its `blobs`.
    """
    model = tiny_model()
    account_id, key = await make_account(session)
    world = LiveWorld(model, key, account_id)
    tokenizer_hash = await _insert_model(session, model, "tiny")
    contexts = _contexts(model)
    corpus_id = await make_corpus(session, account_id, tokenizer_hash, contexts)
    for dictionary in DICTIONARIES:
        sae_id = await _insert_sae(session, world, dictionary, data_dir)
        if dictionary.has_build:
            version_id = await make_version(session, sae_id, corpus_id)
            rows = _feature_rows(world, dictionary, version_id, contexts)
            await session.execute(insert(Feature), rows)
            world.rows[dictionary.slug] = rows
    return world


async def publish_demo(session: WriteSession, data_dir: Path, model: LanguageModel, folder: Path) -> str:
    """The demo model as `demo` with one of the demo SAEs, without dashboards; returns the SAE's id."""
    account_id, _ = await make_account(session)
    await _insert_model(session, model, "demo")
    files = _copied(folder, data_dir)
    info = check_sae(files, model.shape)
    uri = BlobStore(data_dir / "blobs").adopt(files["sae_weights.safetensors"], info.weights_sha256 or "")
    await make_sae(
        session,
        account_id,
        d_sae=info.cfg.d_sae,
        model_id="demo",
        slug=folder.name,
        architecture=info.cfg.architecture,
        hook=info.hook.name,
        layer=info.hook.layer,
        d_in=info.cfg.d_in,
        d_out=info.cfg.d_out,
        config=canonical_config(info.cfg, info.hook, info.hook_out),
        weights_uri=uri,
        weights_sha256=info.weights_sha256,
        weights_bytes=info.n_weight_bytes,
    )
    return folder.name


def _copied(folder: Path, target: Path) -> dict[str, Path]:
    return {path.name: Path(shutil.copy(path, target / path.name)) for path in sorted(folder.iterdir())}


async def _insert_model(session: WriteSession, model: LanguageModel, model_id: str) -> str:
    tokenizer_hash: str = model.provenance["tokenizer_hash"]
    packed = Vocabulary(model.vocabulary.entries).pack()
    session.add(Tokenizer(hash=tokenizer_hash, vocabulary=packed, size=len(model.vocabulary)))
    await session.flush()
    session.add(
        ModelRow(
            id=model_id,
            name=model_id.title(),
            source=model.source.to_dict(),
            shape=asdict(model.shape),
            provenance={**model.provenance, "max_positions": model.max_positions},
            tokenizer_hash=tokenizer_hash,
            bos_token_id=model.bos_id,
            licence="Apache-2.0",
        )
    )
    await session.flush()
    return tokenizer_hash


def _contexts(model: LanguageModel) -> list[list[int]]:
    """Each text with BOS, cut to one length, as corpora are."""
    rows = [[model.bos_id or 0, *model.tokenize(text)] for text in TEXTS]
    length = min(map(len, rows))
    return [row[:length] for row in rows]


async def _insert_sae(session: WriteSession, world: LiveWorld, wanted: Dictionary, data_dir: Path) -> int:
    info, files = _files(wanted, data_dir / "sae-files" / wanted.slug, world.model.shape)
    columns: dict[str, Any] = {}
    world.saes[wanted.slug] = load_sae(files, "cpu", torch.float32)
    if "sae_weights.safetensors" in files:
        weights = files["sae_weights.safetensors"]
        size = weights.stat().st_size
        uri = BlobStore(data_dir / "blobs").adopt(weights, info.weights_sha256 or "")
        columns = {"weights_uri": uri, "weights_sha256": info.weights_sha256, "weights_bytes": size}
    world.infos[wanted.slug] = info
    return await make_sae(
        session,
        world.account_id,
        d_sae=info.cfg.d_sae,
        model_id="tiny",
        slug=wanted.slug,
        architecture=info.cfg.architecture,
        hook=info.hook.name,
        hook_out=info.hook_out.name if info.hook_out != info.hook else None,
        layer=wanted.hook.layer,
        d_in=info.cfg.d_in,
        d_out=info.cfg.d_out,
        config=canonical_config(info.cfg, info.hook, info.hook_out),
        visibility=wanted.visibility,
        **columns,
    )


def _files(wanted: Dictionary, folder: Path, shape: ModelShape) -> tuple[SAEInfo, dict[str, Path]]:
    tiny_sae(folder, shape=shape, hook=wanted.hook, seed=wanted.seed, overrides=wanted.overrides)
    files = {path.name: path for path in sorted(folder.iterdir())}
    return check_sae(files, shape, hook=wanted.hook), files


def _feature_rows(
    world: LiveWorld, wanted: Dictionary, version_id: int, contexts: list[list[int]]
) -> list[dict[str, Any]]:
    """Numbers as a build would store them: over all positions but BOS."""
    stream = capture(world.model, torch.tensor(contexts), [wanted.hook])[wanted.hook]
    values = world.saes[wanted.slug].encode(stream[:, 1:].flatten(0, 1))
    rows: list[dict[str, Any]] = []
    for index in range(values.shape[1]):
        column = values[:, index]
        active = column[column != 0]
        stats = FeatureStats(
            n_active_tokens=len(active),
            n_active_contexts=1 if len(active) else 0,
            activation_sum=float(active.sum()),
            activation_sum_squares=float((active**2).sum()),
            min_activation=float(active.min()) if len(active) else 0.0,
            max_activation=float(active.max()) if len(active) else 0.0,
        )
        row = feature_row(version_id, index, stats, make_examples(stats, len(contexts)), contexts)
        row["density"] = len(active) / len(column)
        row["max_activation"] = float(column.abs().max())
        rows.append(row)
    return rows
