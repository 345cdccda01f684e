"""Running from the middle equals running from the start, in every architecture and from every layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interpedia_engine.effects.cases import Metric
from interpedia_engine.effects.head import all_logits, metric_of, read_metrics, some_logits
from interpedia_engine.effects.resume import Start, observed, run_from, start_below
from interpedia_engine.hooks import SUFFIXES, Hook
from interpedia_engine.models import LanguageModel
from interpedia_engine.sites import site
from tests.engine.architectures import CONFIGS, load_random_model, save_random_model

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS = torch.tensor([[1, 40, 77, 301, 5, 410, 99], [1, 8, 9, 300, 44, 44, 210]])


def turned(x: torch.Tensor) -> torch.Tensor:
    return x + 0.5 * x.roll(1, dims=-1)


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_random_model(save_random_model(request.param, tmp_path_factory.mktemp(request.param)))


def test_skipping_lower_blocks_changes_nothing(model: LanguageModel):
    starts = [Start(block) for block in range(-1, model.shape.n_layers + 1)]
    seen, final = observed(model, TOKENS, [start.hook(model) for start in starts])
    for start in starts:
        with torch.inference_mode():
            again = run_from(model, start, seen[start.hook(model)], [])
        torch.testing.assert_close(again, final, rtol=1e-5, atol=1e-5)


def test_an_edit_above_the_start_equals_one_in_a_whole_pass(model: LanguageModel):
    for kind in SUFFIXES:
        if kind in ("resid_mid", "mlp_normalized") or (
            kind == "mlp_pre" and "phi" in model.shape.architecture
        ):
            continue
        hook = Hook(kind, 1)
        start = start_below([hook])
        seen, plain = observed(model, TOKENS, [start.hook(model)])
        with torch.inference_mode():
            ours = run_from(model, start, seen[start.hook(model)], [(hook, turned)])
            handle = site(model.hf, hook, architecture=model.shape.architecture).edit(turned)
            try:
                expected = model.run_body(TOKENS)
            finally:
                handle.remove()
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
        assert (ours - plain).abs().max() > 1e-3, kind


def test_an_edit_of_the_embedding(model: LanguageModel):
    hook = Hook("embed", None)
    seen, _ = observed(model, TOKENS, [hook])
    with torch.inference_mode():
        ours = run_from(model, Start(-1), seen[hook], [(hook, lambda x: x + 0.3)])
        handle = site(model.hf, hook, architecture=model.shape.architecture).edit(lambda x: x + 0.3)
        try:
            expected = model.run_body(TOKENS)
        finally:
            handle.remove()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_lower_blocks_really_are_skipped_and_come_back(model: LanguageModel):
    start = Start(2)
    seen, final = observed(model, TOKENS, [start.hook(model)])
    # Flipped, since a constant added is nothing to a LayerNorm.
    changed = seen[start.hook(model)].flip(-1)
    with torch.inference_mode():
        assert (run_from(model, start, changed, []) - final).abs().max() > 1e-3
        torch.testing.assert_close(model.run_body(TOKENS), final, rtol=0, atol=0)
    for module in model.hf.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_failing_edit_leaves_nothing_behind(model: LanguageModel):
    def explode(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    seen, final = observed(model, TOKENS, [Hook("resid_pre", 1)])
    with pytest.raises(ZeroDivisionError), torch.inference_mode():
        run_from(model, Start(1), seen[Hook("resid_pre", 1)], [(Hook("resid_post", 1), explode)])
    with torch.inference_mode():
        assert torch.equal(model.run_body(TOKENS), final)


def test_logits_are_the_models_own(model: LanguageModel):
    """Gemma 2 caps them; the few are those of the many."""
    with torch.inference_mode():
        expected = model.hf(TOKENS, use_cache=False).logits
        final = model.run_body(TOKENS)
        torch.testing.assert_close(all_logits(model, final), expected, rtol=1e-5, atol=1e-5)
        few = some_logits(model, final, [3, 300, 17])
        torch.testing.assert_close(few, expected[..., [3, 300, 17]], rtol=1e-5, atol=1e-5)
        metrics = read_metrics(model, final[:, -1], [Metric((3, 300), (17,)), Metric((9,))])
    row = expected[0, -1].double()
    assert metrics[0].item() == pytest.approx(
        ((row[3].exp() + row[300].exp()).log() - row[17]).item(), abs=1e-4
    )
    assert metrics[1].item() == pytest.approx(expected[1, -1, 9].item(), abs=1e-4)


def test_an_output_layer_with_a_bias(tmp_path: Path):
    model = load_random_model(save_random_model("llama", tmp_path))
    head = model.hf.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.linspace(-3, 3, model.shape.d_vocab), requires_grad=False)
    with torch.inference_mode():
        final = model.run_body(TOKENS)
        expected = model.hf(TOKENS, use_cache=False).logits[..., [5, 500]]
        torch.testing.assert_close(some_logits(model, final, [5, 500]), expected, rtol=1e-5, atol=1e-5)


def test_metric_of_sets():
    good, bad = torch.tensor([1.0, 2.0]), torch.tensor([0.5])
    expected = torch.logsumexp(good, 0) - 0.5
    torch.testing.assert_close(metric_of(good, bad), expected)
    torch.testing.assert_close(metric_of(good[:1], bad[:0]), torch.tensor(1.0))
