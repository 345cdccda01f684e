"""Models and SAEs that a worker keeps loaded between tasks: those used last, within a budget of bytes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import torch

from interpedia_engine.models import LanguageModel, ModelSource, load_model
from interpedia_engine.saes import SAE, load_sae
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.settings import IngestSettings
from interpedia_shared.db.base import JSON

log = structlog.get_logger(__name__)


class Shelf:
    """Loads what a task needs unless it is here already."""

    def __init__(self, settings: IngestSettings, folder: DataFolder) -> None:
        self.settings = settings
        self._folder = folder
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def model(self, source: ModelSource) -> LanguageModel:
        """A language model in the worker's dtype.

        Raises:
            EngineError: it cannot be loaded.
        """
        key = f"model {json.dumps(source.to_dict(), sort_keys=True)}"
        model: LanguageModel = await self._get(key, lambda: self._load_model(source), _model_bytes)
        return model

    async def sae(self, config: JSON, weights_uri: str | None) -> SAE:
        """An SAE in float32.

        Raises:
            EngineError: its files are not what they were at intake.
        """
        key = f"sae {weights_uri} {json.dumps(config, sort_keys=True)}"
        sae: SAE = await self._get(key, lambda: self._load_sae(config, weights_uri), _sae_bytes)
        return sae

    async def _get(self, key: str, load: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        async with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
            item = await asyncio.to_thread(load)
            self._held[key] = (item, size(item))
            self._make_room()
            return item

    def _make_room(self) -> None:
        """Let go of what was used longest ago; never of what was just asked for."""
        while len(self._held) > 1 and self._bytes() > self.settings.max_resident_bytes:
            key, (_, size) = self._held.popitem(last=False)
            log.info("unloaded", item=key.split(" ", 1)[0], bytes=size)

    def _bytes(self) -> int:
        return sum(size for _, size in self._held.values())

    def _load_model(self, source: ModelSource) -> LanguageModel:
        return load_model(
            source,
            cache_dir=self._folder.models,
            dtype=self.settings.model_dtype,
            device=self.settings.device,
            threads=self.settings.torch_threads,
        )

    def _load_sae(self, config: JSON, weights_uri: str | None) -> SAE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cfg.json"
            path.write_text(json.dumps(config), encoding="utf-8")
            files = {"cfg.json": path}
            if weights_uri is not None:
                files["sae_weights.safetensors"] = self._folder.blobs.path(weights_uri)
            return load_sae(files, self.settings.device, torch.float32)


def _model_bytes(model: LanguageModel) -> int:
    parameters: Any = model.hf.parameters()
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _sae_bytes(sae: SAE) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in sae.weights.values())
