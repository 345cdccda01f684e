"""Hook names: refusals first, then every spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia_engine.errors import (
    EngineError,
    OutOfRange,
    UnknownHook,
    UnsupportedArchitecture,
    UnsupportedHook,
)
from interpedia_engine.hooks import SUFFIXES, Hook, ModelShape, hook_width, parse_hook
from interpedia_engine.layouts import LAYOUTS


def shape(architecture: str = "llama") -> ModelShape:
    return ModelShape(
        n_layers=30, d_model=576, d_mlp=1536, n_heads=9, d_head=64, d_vocab=49152, architecture=architecture
    )


class TestRefusals:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "blocks",
            "blocks.3",
            "blocks.3.",
            "blocks.03.hook_resid_post",
            "blocks.-1.hook_resid_post",
            "blocks.3.hook_resid_posts",
            " blocks.3.hook_resid_post",
            "blocks.3.hook_resid_post\n",
            "blocks.٣.hook_resid_post",
            "transformer.h.3",
            "gpt_neox.layers.3",
            "model.layers.3.mlp.nothing",
            "model.layers.3.mlp.act_fn",
            "xmodel.layers.3",
            "hook_embedding",
            "ln_final.hook_normalized",
        ],
    )
    def test_unknown(self, text: str):
        with pytest.raises(UnknownHook) as caught:
            parse_hook(text, shape())
        assert caught.value.field == "hook"
        assert repr(text) in caught.value.detail

    def test_names_near_matches(self):
        with pytest.raises(UnknownHook, match=r"near matches: .*blocks\.15\.hook_resid_post"):
            parse_hook("blocks.15.hook_resid_pots", shape())

    def test_long_names_are_not_compared(self):
        with pytest.raises(UnknownHook, match="at most 200 characters"):
            parse_hook("blocks." * 100, shape())

    @pytest.mark.parametrize("text", ["blocks.30.hook_resid_post", "model.layers.30", "layers.99999.mlp"])
    def test_a_layer_past_the_end_names_the_range(self, text: str):
        with pytest.raises(OutOfRange, match=r"outside 0\.\.29"):
            parse_hook(text, shape())

    @pytest.mark.parametrize(
        "text", ["blocks.3.attn.hook_pattern", "blocks.3.attn.hook_q", "blocks.3.ln1.hook_scale"]
    )
    def test_what_plain_modules_hide_is_refused_with_the_reason(self, text: str):
        with pytest.raises(UnsupportedHook, match="inside a module"):
            parse_hook(text, shape())

    @pytest.mark.parametrize(
        "text",
        [
            "model.layers.3.mlp.output",
            "model.layers.3.mlp",
            "layers.3.self_attn",
            "layers.3.mlp.down_proj.output",
        ],
    )
    def test_gemmas_outputs_before_their_post_norm_are_refused(self, text: str):
        assert parse_hook(text, shape("llama"))
        with pytest.raises(UnsupportedHook, match="passes a norm"):
            parse_hook(text, shape("gemma2"))

    def test_parallel_blocks_have_no_middle(self):
        with pytest.raises(UnsupportedHook, match="in parallel"):
            parse_hook("blocks.3.hook_resid_mid", shape("gpt_neox"))

    def test_fused_gates_have_no_pre_activation(self):
        with pytest.raises(UnsupportedHook, match="fused"):
            parse_hook("blocks.3.mlp.hook_pre", shape("phi3"))

    def test_unknown_architecture(self):
        with pytest.raises(UnsupportedArchitecture, match="'rwkv' is not one of"):
            parse_hook("blocks.3.hook_resid_post", shape("rwkv"))

    @given(st.text(max_size=60))
    def test_any_text_is_answered_or_refused(self, text: str):
        try:
            hook = parse_hook(text, shape())
        except EngineError as error:
            field = error.field
        else:
            field = "hook"
            assert parse_hook(hook.name, shape()) == hook
        assert field == "hook"


class TestSpellings:
    @pytest.mark.parametrize("architecture", sorted(LAYOUTS))
    def test_canonical_names_read_back(self, architecture: str):
        read = 0
        for kind in ("embed", *SUFFIXES):
            hook = Hook(kind, None if kind == "embed" else 7)
            try:
                assert parse_hook(hook.name, shape(architecture)) == hook
                read += 1
            except UnsupportedHook:
                assert (architecture, kind) in {("gpt_neox", "resid_mid"), ("phi3", "mlp_pre")}
        assert read >= 11

    @pytest.mark.parametrize(
        ("text", "architecture", "name"),
        [
            ("model.layers.15", "llama", "blocks.15.hook_resid_post"),
            ("model.layers.15.output", "llama", "blocks.15.hook_resid_post"),
            ("model.layers.15.input", "llama", "blocks.15.hook_resid_pre"),
            ("layers.15", "qwen3", "blocks.15.hook_resid_post"),
            ("layers.15.mlp", "llama", "blocks.15.hook_mlp_out"),
            ("model.layers.5.self_attn.o_proj.input", "gemma3_text", "blocks.5.attn.hook_z"),
            ("model.layers.5.self_attn.o_proj.output", "llama", "blocks.5.hook_attn_out"),
            ("model.layers.5.mlp.output", "mistral", "blocks.5.hook_mlp_out"),
            ("model.layers.5.mlp.input", "llama", "blocks.5.mlp.hook_in"),
            ("model.layers.5.mlp.down_proj.input", "llama", "blocks.5.mlp.hook_post"),
            ("model.layers.5.mlp.gate_proj", "llama", "blocks.5.mlp.hook_pre"),
            ("model.layers.5.post_attention_layernorm.input", "llama", "blocks.5.hook_resid_mid"),
            ("model.layers.5.post_attention_layernorm.output", "llama", "blocks.5.mlp.hook_in"),
            ("model.layers.5.post_attention_layernorm.output", "gemma3_text", "blocks.5.hook_attn_out"),
            ("model.layers.5.pre_feedforward_layernorm.output", "gemma3_text", "blocks.5.mlp.hook_in"),
            ("model.layers.5.post_feedforward_layernorm.output", "gemma3_text", "blocks.5.hook_mlp_out"),
            ("transformer.h.5", "gpt2", "blocks.5.hook_resid_post"),
            ("h.5.mlp", "gpt2", "blocks.5.hook_mlp_out"),
            ("transformer.h.5.attn.c_proj.input", "gpt2", "blocks.5.attn.hook_z"),
            ("gpt_neox.layers.5.attention", "gpt_neox", "blocks.5.hook_attn_out"),
            ("gpt_neox.layers.5.mlp.dense_4h_to_h.input", "gpt_neox", "blocks.5.mlp.hook_post"),
            ("blocks.5.hook_out", "llama", "blocks.5.hook_resid_post"),
            ("blocks.5.ln2.hook_out", "llama", "blocks.5.mlp.hook_in"),
            ("blocks.5.mlp.hook_out", "llama", "blocks.5.hook_mlp_out"),
            ("embed_tokens", "llama", "hook_embed"),
            ("model.embed_tokens", "llama", "hook_embed"),
            ("transformer.wte.output", "gpt2", "hook_embed"),
        ],
    )
    def test_aliases(self, text: str, architecture: str, name: str):
        assert parse_hook(text, shape(architecture)).name == name

    def test_widths(self):
        widths = {
            name: hook_width(parse_hook(f"blocks.0.{name}", shape()), shape())
            for name in ("hook_resid_post", "attn.hook_z", "mlp.hook_post", "mlp.hook_pre", "hook_mlp_out")
        }
        assert list(widths.values()) == [576, 576, 1536, 1536, 576]
        assert hook_width(Hook("embed", None), shape()) == 576

    def test_heads_may_be_wider_than_the_stream(self):
        wide = ModelShape(26, 1152, 6912, 4, 256, 262144, "gemma3_text")
        assert hook_width(Hook("attn_z", 3), wide) == 1024
