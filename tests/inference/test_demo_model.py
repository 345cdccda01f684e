"""The demo model and one of its SAEs, from the question to the answer: few, because the model is large."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from interpedia_engine.models import LanguageModel
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.db.session import Database
from interpedia_shared.settings import DatabaseSettings
from tests.inference.live_host import live_host
from tests.support.demo_model import REPO
from tests.support.live_world import publish_demo

pytestmark = [pytest.mark.real_model, pytest.mark.filterwarnings("ignore")]
TEXT = "So Mary is such a good cook, isn't"
METRIC = {"good": [" she"], "bad": [" he"]}


@pytest.fixture
async def demo_sae(database: Database, tmp_path: Path, smollm2: LanguageModel, model_cache: Path) -> str:
    (tmp_path / "models").symlink_to(model_cache)
    async with database.write() as session:
        return await publish_demo(session, tmp_path, smollm2, REPO / "examples" / "saes" / "15-res-3k")


async def test_the_feature_that_attribution_finds_steers_the_answer(
    demo_sae: str, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    settings = InferenceSettings(data_dir=tmp_path, model="demo", torch_threads=1)
    with live_host(settings, database_settings) as host:
        host.wait_until("ready")
        async with httpx.AsyncClient(base_url=host.url, timeout=120) as client:
            asked = {"model": "demo", "text": TEXT, "saes": [demo_sae], "metric": METRIC, "exact": 5}
            answer = (await client.post("/v1/attribute", json=asked)).json()
            assert answer["metric"] > 1  # it says she
            best = answer["results"][0]
            assert best["exact"] > 0.3 * answer["metric"]

            top = {"model": "demo", "text": TEXT, "saes": [demo_sae], "k": 200}
            active = (await client.post("/v1/activations/top", json=top)).json()["results"]
            assert best["index"] in [one["index"] for one in active]

            lens = {"model": "demo", "text": TEXT, "layers": [29], "positions": [len(answer["tokens"]) - 1]}
            last = (await client.post("/v1/lens", json=lens)).json()["layers"][0]["cells"][0]
            steer = {
                "model": "demo",
                "prompt": TEXT,
                "temperature": 0,
                "max_new_tokens": 1,
                "n_logprobs": 20,
                "interventions": [
                    {
                        "sae": demo_sae,
                        "feature": best["index"],
                        "method": "clamp",
                        "strength": 0,
                        "unit": "raw",
                    }
                ],
            }
            both = (await client.post("/v1/steer", json=steer)).json()
            assert "default" in both, both
            assert both["default"]["token_ids"][0] == last["token_ids"][0]
            # what one route measures the other does: the gap of she over he shrinks by the exact effect
            gap = {}
            for output in ("default", "steered"):
                logprobs = {one["token"]: one["logprob"] for one in both[output]["top_logprobs"][0]}
                gap[output] = logprobs[" she"] - logprobs[" he"]
            assert gap["default"] - gap["steered"] == pytest.approx(best["exact"], abs=1e-3)
