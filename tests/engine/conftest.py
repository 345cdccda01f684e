"""Models for the engine's tests and how they compute; the demo model is in tests/support."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interpedia_engine.models import LanguageModel, ModelSource, load_model

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Sums come out the same on every machine with one thread; the cores may be shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    return load_model(ModelSource("tiny"), cache_dir="unused")
