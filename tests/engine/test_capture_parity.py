"""Every hook of every architecture against TransformerLens, and against transformers' hidden states."""

import warnings
from pathlib import Path

import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.errors import UnsupportedHook
from interpedia_engine.hooks import SUFFIXES, Hook, parse_hook
from interpedia_engine.layouts import LAYOUTS
from interpedia_engine.models import LanguageModel, self_check
from tests.engine.architectures import CONFIGS, load_random_model, save_random_model

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS = torch.tensor([[1, 30, 300, 77, 301, 302, 500, 12], [1, 9, 8, 7, 6, 5, 4, 3]])


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_random_model(folder)


def test_every_layout_is_tested():
    assert set(CONFIGS) == set(LAYOUTS)


def test_hooks_equal_transformer_lens(folder: Path, model: LanguageModel):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
        bridge.set_use_hook_mlp_in(True)
        with torch.no_grad():
            _, theirs = bridge.run_with_cache(TOKENS)
    compared: list[str] = []
    for kind in ("embed", *SUFFIXES):
        for layer in [None] if kind == "embed" else range(model.shape.n_layers):
            try:
                hook = parse_hook(Hook(kind, layer).name, model.shape)
            except UnsupportedHook:
                continue
            ours = capture(model, TOKENS, [hook])[hook]
            expected = theirs[hook.name].reshape(ours.shape)
            torch.testing.assert_close(
                ours, expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=hook.name: f"{n}: {m}"
            )
            compared.append(hook.name)
    assert len(compared) >= 1 + 10 * model.shape.n_layers


def test_streams_equal_hidden_states(model: LanguageModel):
    self_check(model)


def test_hooks_that_sound_alike_differ(model: LanguageModel):
    hooks = [Hook("mlp_in", 1), Hook("mlp_normalized", 1), Hook("mlp_input", 1)]
    captured = [capture(model, TOKENS, [hook])[hook] for hook in hooks]
    for i, one in enumerate(captured):
        for other in captured[i + 1 :]:
            assert (one - other).abs().max() > 1e-2
