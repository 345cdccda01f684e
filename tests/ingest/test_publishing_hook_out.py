"""What must agree: a manifest's places with those of cfg.json, and spills with their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpedia_engine.saes import parse_config
from interpedia_ingest.dashboards.errors import BadSpill
from interpedia_ingest.dashboards.reduce import Reducer
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_shared.db.models import SAE, Job, SAEVersion
from interpedia_shared.db.session import Database
from tests.ingest.dashboards_support import make_selection, random_dense, spill_dense
from tests.ingest.ingest_support import HOOK, Researcher, assert_problem, row_counts, sae_files

KEEPS_LIBRARY = True
READS, WRITES = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
ELSEWHERE = "blocks.3.hook_mlp_out"


async def nothing_is_left(database: Database) -> bool:
    return not any((await row_counts(database, SAE, SAEVersion, Job)).values())


def with_metadata(files: dict[str, bytes], **metadata: Any) -> dict[str, bytes]:
    config = json.loads(files["cfg.json"])
    config["metadata"] |= metadata
    return files | {"cfg.json": json.dumps(config).encode()}


async def test_a_transcoder_with_two_places_to_write_is_refused(
    ready: Researcher, database: Database, tmp_path: Path
) -> None:
    files = sae_files(tmp_path, hook=READS, architecture="transcoder")
    assert parse_config(files["cfg.json"]).hook_name_out == WRITES
    answer = await ready.order_sae(files, hook=READS, hook_out=ELSEWHERE)
    assert_problem(answer, 422, "bad-sae", "#/hook_out", ELSEWHERE, f"hook_name_out = {WRITES}")
    assert await nothing_is_left(database)
    answer = await ready.order_sae(files, hook=READS, hook_out=WRITES)
    assert answer.status_code == 202, answer.text


async def test_a_place_to_write_means_nothing_for_what_writes_where_it_reads(
    ready: Researcher, database: Database, tmp_path: Path
) -> None:
    answer = await ready.order_sae(sae_files(tmp_path), hook_out=ELSEWHERE)
    assert_problem(answer, 422, "bad-sae", "#/hook_out", ELSEWHERE, "no meaning here", HOOK)
    body = {"model": "tiny", "corpus": "words", "name": "raw", "hook": HOOK, "architecture": "identity"}
    answer = await ready.post("/v1/saes", body | {"hook_out": ELSEWHERE})
    assert_problem(answer, 422, "bad-sae", "#/hook_out", ELSEWHERE, "no meaning here", HOOK)
    assert await nothing_is_left(database)
    answer = await ready.post("/v1/saes", body | {"hook_out": HOOK, "n_tokens": 1024})
    assert answer.status_code == 202, answer.text


async def test_the_other_name_in_the_configuration_must_agree_too(
    ready: Researcher, database: Database, tmp_path: Path
) -> None:
    files = sae_files(tmp_path)
    for own in (HOOK, None):
        wrong = with_metadata(files, hook_name=own, hf_hook_name="model.layers.1")
        answer = await ready.order_sae(wrong)
        assert_problem(answer, 422, "bad-sae", "#/hook", HOOK, "hf_hook_name = blocks.1.hook_resid_post")
    assert await nothing_is_left(database)
    answer = await ready.order_sae(with_metadata(files, hf_hook_name="model.layers.2"))
    assert answer.status_code == 202, answer.text


def test_spills_of_other_weights_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    selection = make_selection(rng.integers(0, 9, (64, 12)))
    dense = random_dense(rng, 64, 12, 4)
    settings = DashboardSettings(context_length=12)
    counted = np.ones((64, 12), np.bool_)
    spills = spill_dense(tmp_path, dense, counted, selection, settings=settings, rows_per_shard=32)
    own = spills[0].header.weights
    Reducer(spills, selection, settings=settings)
    Reducer(spills, selection, settings=settings, weights=own)
    with pytest.raises(BadSpill, match=r"weights: .* not 'of another SAE'"):
        Reducer(spills, selection, settings=settings, weights="of another SAE")
