"""What directions do to logits, against the model's own modules."""

from pathlib import Path

import pytest
import torch

from interpedia_engine.errors import UnsupportedHook, WidthMismatch
from interpedia_engine.hooks import Hook
from interpedia_engine.layouts import layout_of
from interpedia_engine.logit_lens import logit_effects, residual_directions
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import identity_sae
from tests.engine.architectures import load_random_model, save_random_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["llama", "gemma", "gemma2", "gpt2", "gpt_neox"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_random_model(save_random_model(request.param, tmp_path_factory.mktemp(request.param)))


def rows(n: int, width: int) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(3))


def test_plain_effects_are_the_output_layer(model: LanguageModel):
    directions = rows(5, model.shape.d_model)
    bias = getattr(model.hf.get_output_embeddings(), "bias", None)
    assert bias is None
    with torch.no_grad():
        expected = model.hf.get_output_embeddings()(directions)
    torch.testing.assert_close(logit_effects(directions, model, False), expected, rtol=1e-5, atol=1e-5)


def test_with_the_gain_they_are_the_slope_of_the_norm(model: LanguageModel):
    """Compare with a difference quotient of the model's own norm and output layer along a huge stream.

    Directions are orthogonal to the stream, and to the ones where the norm centres: what the lens leaves out.
    """
    d_model = model.shape.d_model
    layout = layout_of(model.shape.architecture)
    norm = model.hf.get_submodule(layout.final_norm).double()
    head = model.hf.get_output_embeddings().double()
    try:
        x = rows(1, d_model).double()
        directions = rows(4, d_model).double()
        if layout.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
            directions = directions - directions.mean(-1, keepdim=True)
        directions = directions - (directions @ x.T) / (x @ x.T) * x
        size = 1e4
        scale = (x.pow(2).mean().sqrt() * size).item()
        with torch.no_grad():
            slope = (head(norm(size * x + directions)) - head(norm(size * x))) * scale
    finally:
        norm.float()
        head.float()
    ours = logit_effects(directions.float(), model, True)
    torch.testing.assert_close(ours.double(), slope, rtol=2e-3, atol=2e-3)
    assert (ours - logit_effects(directions.float(), model, False)).abs().max() > 1e-2


def test_rows_of_another_width(model: LanguageModel):
    with pytest.raises(WidthMismatch, match="decoder_rows: have width 7"):
        logit_effects(torch.zeros(2, 7), model, False)
    with pytest.raises(WidthMismatch, match=r"rows: have width 7, but blocks\.0\.mlp\.hook_post has"):
        residual_directions(torch.zeros(2, 7), Hook("mlp_post", 0), model)


@pytest.mark.parametrize("kind", ["mlp_post", "attn_z"])
def test_neurons_and_heads_go_through_their_output_projection(model: LanguageModel, kind):
    layout = layout_of(model.shape.architecture)
    path = layout.mlp_out_proj if kind == "mlp_post" else layout.attention_out_proj
    hook = Hook(kind, 1)
    block = model.hf.get_submodule(f"{layout.layers}.1")
    projection = block.get_submodule(path)
    units = identity_sae(hook, model.shape).decoder_rows(2, 9)
    with torch.no_grad():
        expected = projection(units) - projection(torch.zeros_like(units))
        if layout.post_mlp_norm and layout.post_attention_norm:
            name = layout.post_mlp_norm if kind == "mlp_post" else layout.post_attention_norm
            expected = expected * (1 + block.get_submodule(name).weight)
    torch.testing.assert_close(residual_directions(units, hook, model), expected, rtol=1e-5, atol=1e-5)


def test_what_is_in_the_stream_stays(model: LanguageModel):
    directions = rows(3, model.shape.d_model)
    for kind in ("resid_pre", "resid_post", "attn_out", "mlp_out"):
        assert residual_directions(directions, Hook(kind, 0), model) is directions


@pytest.mark.parametrize("kind", ["mlp_input", "mlp_in", "mlp_normalized", "mlp_pre"])
def test_what_reaches_the_stream_only_through_a_nonlinearity_is_refused(model: LanguageModel, kind):
    width = model.shape.d_mlp if kind == "mlp_pre" else model.shape.d_model
    with pytest.raises(UnsupportedHook, match="only through a non-linearity"):
        residual_directions(torch.zeros(1, width), Hook(kind, 0), model)


def test_pieces_equal_the_whole(tiny: LanguageModel, tmp_path: Path):
    directions = rows(64, 64)
    whole = logit_effects(directions, tiny, True)
    pieces = torch.cat([logit_effects(directions[i : i + 16], tiny, True) for i in range(0, 64, 16)])
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-6)
