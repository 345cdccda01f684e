"""Capture on the tiny model: refusals, stopping early, padding, determinism."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpedia_engine.capture import capture
from interpedia_engine.errors import EngineError, OutOfRange, UnsupportedHook
from interpedia_engine.hooks import SUFFIXES, Hook, hook_width
from interpedia_engine.models import LanguageModel
from interpedia_engine.sites import site

ALL_HOOKS = [Hook("embed", None)] + [Hook(kind, layer) for layer in range(4) for kind in SUFFIXES]


def tokens_of(model: LanguageModel, *texts: str) -> torch.Tensor:
    rows = [[1, *model.tokenize(text)] for text in texts]
    return torch.tensor(rows)


class TestRefusals:
    def test_layer_outside_the_model(self, tiny: LanguageModel):
        for layer in (4, -1):
            with pytest.raises(OutOfRange, match=r"outside 0\.\.3"):
                capture(tiny, torch.tensor([[1, 2]]), [Hook("resid_post", layer)])

    @pytest.mark.parametrize("bad", [-1, 526])
    def test_token_outside_the_vocabulary(self, tiny: LanguageModel, bad: int):
        with pytest.raises(OutOfRange, match=rf"tokens: token id {bad} is outside 0\.\.525"):
            capture(tiny, torch.tensor([[1, bad]]), [Hook("resid_post", 0)])

    def test_more_positions_than_the_model_has(self, tiny: LanguageModel):
        with pytest.raises(OutOfRange, match="513 positions are more than the model's 512"):
            capture(tiny, torch.ones(1, 513, dtype=torch.int64), [Hook("resid_post", 0)])

    @pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 0)])
    def test_no_tokens(self, tiny: LanguageModel, shape: tuple[int, ...]):
        with pytest.raises(OutOfRange, match="tokens"):
            capture(tiny, torch.zeros(shape, dtype=torch.int64), [Hook("resid_post", 0)])

    def test_a_failing_pass_leaves_no_hook_behind(self, tiny: LanguageModel):
        class Boom(Exception):
            pass

        def explode(*_):
            raise Boom

        handle = tiny.hf.base_model.layers[2].register_forward_hook(explode)
        try:
            with pytest.raises(Boom):
                capture(tiny, torch.tensor([[1, 2]]), [Hook("resid_post", 3)])
        finally:
            handle.remove()
        for module in tiny.hf.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks

    def test_a_hook_that_never_fires_is_an_error(self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tiny.hf.config, "num_hidden_layers", 2)
        with pytest.raises(EngineError, match=r"never came by blocks\.3\.hook_resid_post"):
            capture(tiny, torch.tensor([[1, 2]]), [Hook("resid_post", 0), Hook("resid_post", 3)])


class TestWhatIsCaptured:
    def test_every_hook_has_its_width_and_dtype(self, tiny: LanguageModel):
        tokens = tokens_of(tiny, "the cat")
        captured = capture(tiny, tokens, ALL_HOOKS)
        assert list(captured) == ALL_HOOKS
        for hook, value in captured.items():
            assert value.shape == (*tokens.shape, hook_width(hook, tiny.shape))
            assert value.dtype == torch.float32
            assert not value.requires_grad

    def test_parts_add_up(self, tiny: LanguageModel):
        c = capture(tiny, tokens_of(tiny, "the river in the city"), ALL_HOOKS)
        for layer in range(4):
            at = {kind: c[Hook(kind, layer)] for kind in SUFFIXES}
            assert torch.equal(at["resid_pre"] + at["attn_out"], at["resid_mid"])
            assert torch.equal(at["resid_mid"] + at["mlp_out"], at["resid_post"])
            assert torch.equal(at["mlp_in"], at["resid_mid"])
            block = tiny.hf.base_model.layers[layer]
            gain = block.post_attention_layernorm.weight
            torch.testing.assert_close(at["mlp_normalized"] * gain, at["mlp_input"], rtol=1e-6, atol=1e-6)
            assert torch.equal(block.mlp.down_proj(at["mlp_post"]), at["mlp_out"])
            assert torch.equal(block.self_attn.o_proj(at["attn_z"]), at["attn_out"])

    def test_alone_or_among_others_is_the_same(self, tiny: LanguageModel):
        tokens = tokens_of(tiny, "the cat and the dog")
        together = capture(tiny, tokens, ALL_HOOKS)
        for hook in ALL_HOOKS:
            assert torch.equal(capture(tiny, tokens, [hook])[hook], together[hook])

    def test_order_and_duplicates_do_not_matter(self, tiny: LanguageModel):
        tokens = tokens_of(tiny, "the cat")
        late, early = Hook("resid_post", 3), Hook("resid_pre", 0)
        captured = capture(tiny, tokens, [late, early, late])
        assert list(captured) == [late, early]
        assert not torch.equal(captured[late], captured[early])

    def test_no_hooks_costs_nothing(self, tiny: LanguageModel):
        assert capture(tiny, torch.tensor([[1, 2]]), []) == {}

    def test_it_stops_at_the_last_hook(self, tiny: LanguageModel):
        ran: list[str] = []
        modules = {f"layer {i}": layer for i, layer in enumerate(tiny.hf.base_model.layers)}
        modules |= {"mlp 1": tiny.hf.base_model.layers[1].mlp, "head": tiny.hf.lm_head}
        handles = [
            module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
            for name, module in modules.items()
        ]
        try:
            capture(tiny, torch.tensor([[1, 2, 3]]), [Hook("attn_out", 1), Hook("resid_post", 0)])
        finally:
            for handle in handles:
                handle.remove()
        assert ran == ["layer 0", "layer 1"]

    def test_what_is_returned_is_a_copy(self, tiny: LanguageModel):
        tokens = torch.tensor([[1, 2, 3]])
        first = capture(tiny, tokens, [Hook("resid_post", 0), Hook("resid_pre", 1)])
        with torch.inference_mode():
            first[Hook("resid_post", 0)].zero_()
        assert not torch.equal(first[Hook("resid_post", 0)], first[Hook("resid_pre", 1)])


class TestPadding:
    TEXTS = (
        "the cat",
        "the river in the city was blue and green",
        "music",
        "people have had the time of the year",
    )

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_a_padded_batch_equals_one_by_one(self, tiny: LanguageModel, side: str):
        rows = [[1, *tiny.tokenize(text)] for text in self.TEXTS]
        longest = max(map(len, rows))
        hooks = [Hook("resid_post", 3), Hook("attn_z", 2), Hook("mlp_post", 3)]
        padded, mask = [], []
        for row in rows:
            gap = [0] * (longest - len(row))
            padded.append(row + gap if side == "right" else gap + row)
            mask.append([1] * len(row) + gap if side == "right" else gap + [1] * len(row))
        batch = capture(tiny, torch.tensor(padded), hooks, torch.tensor(mask))
        for i, row in enumerate(rows):
            alone = capture(tiny, torch.tensor([row]), hooks)
            for hook in hooks:
                kept = batch[hook][i][torch.tensor(mask[i], dtype=torch.bool)]
                torch.testing.assert_close(kept, alone[hook][0], rtol=1e-5, atol=1e-5)

    def test_without_the_mask_left_padding_would_change_values(self, tiny: LanguageModel):
        hook = Hook("resid_post", 3)
        row = [1, *tiny.tokenize("the river in the city")]
        alone = capture(tiny, torch.tensor([row]), [hook])[hook][0]
        unmasked = capture(tiny, torch.tensor([[0, 0, *row]]), [hook])[hook][0, 2:]
        assert (alone - unmasked).abs().max() > 1e-2

    def test_a_mask_of_ones_is_no_mask(self, tiny: LanguageModel):
        hook = Hook("resid_post", 3)
        tokens = tokens_of(tiny, "the cat is red", "the dog is red")
        masked = capture(tiny, tokens, [hook], torch.ones_like(tokens))
        assert torch.equal(masked[hook], capture(tiny, tokens, [hook])[hook])


class TestDeterminism:
    @settings(max_examples=15, deadline=None)
    @given(st.data())
    def test_the_same_batch_gives_the_same_bits(self, tiny: LanguageModel, data: st.DataObject):
        n_rows, n_positions = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
        seed = data.draw(st.integers(0, 2**31))
        tokens = torch.randint(3, 526, (n_rows, n_positions), generator=torch.Generator().manual_seed(seed))
        hooks = [Hook("resid_post", 1), Hook("resid_post", 3)]
        first, second = capture(tiny, tokens, hooks), capture(tiny, tokens, hooks)
        assert all(torch.equal(first[hook], second[hook]) for hook in hooks)
        alone = capture(tiny, tokens[-1:], hooks)
        for hook in hooks:
            torch.testing.assert_close(first[hook][-1:], alone[hook], rtol=1e-5, atol=1e-5)


class TestEdits:
    """The write side that interventions use."""

    def _stream_after(self, model: LanguageModel, hook: Hook, change) -> torch.Tensor:
        tokens = tokens_of(model, "the cat is in the house")
        handle = site(model.hf, hook, architecture=model.shape.architecture).edit(change)
        try:
            last = Hook("resid_post", 3)
            return capture(model, tokens, [last])[last]
        finally:
            handle.remove()

    WRITABLE = tuple(kind for kind in SUFFIXES if kind not in ("resid_mid", "mlp_normalized"))

    @pytest.mark.parametrize("kind", WRITABLE)
    def test_an_edit_is_felt_downstream_and_nothing_is_left(self, tiny: LanguageModel, kind):
        last = Hook("resid_post", 3)
        before = capture(tiny, tokens_of(tiny, "the cat is in the house"), [last])[last]
        hook = Hook(kind, 1)
        assert torch.equal(self._stream_after(tiny, hook, lambda x: x), before)
        assert (self._stream_after(tiny, hook, lambda x: x + 1.0) - before).abs().max() > 1e-3
        assert torch.equal(capture(tiny, tokens_of(tiny, "the cat is in the house"), [last])[last], before)

    def test_post_of_one_layer_is_pre_of_the_next(self, tiny: LanguageModel):
        after = self._stream_after(tiny, Hook("resid_post", 1), lambda x: 2 * x)
        assert torch.equal(after, self._stream_after(tiny, Hook("resid_pre", 2), lambda x: 2 * x))

    @pytest.mark.parametrize("kind", ["resid_mid", "mlp_normalized"])
    def test_where_writing_would_do_something_else_it_is_refused(self, tiny: LanguageModel, kind):
        with pytest.raises(UnsupportedHook, match="can be read, not written"):
            site(tiny.hf, Hook(kind, 1), architecture="llama").edit(lambda x: x)
