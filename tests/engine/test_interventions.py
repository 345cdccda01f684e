"""Changes of features and directions on the tiny model, against the formulas written by hand."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interpedia_engine.capture import capture
from interpedia_engine.errors import OutOfRange, UnsupportedHook, WidthMismatch
from interpedia_engine.hooks import Hook
from interpedia_engine.interventions import (
    DirectionChange,
    FeatureChange,
    RowChanges,
    Window,
    check_change,
    edited,
    feature_delta,
    read_features,
)
from interpedia_engine.interventions.splice import has_token_scale
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import SAE, identity_sae, load_sae
from interpedia_engine.saes.tiny import tiny_sae

HOOK = Hook("resid_post", 1)
FEATURE_METHODS = ("add", "clamp", "scale", "ablate", "orthogonal", "project_cap")
CONFIGS = {
    "topk": {},
    "topk-rescaled": {"rescale_acts_by_decoder_norm": True},
    "abstopk": {"architecture": "abstopk"},
    "standard": {"architecture": "standard"},
    "gated": {"architecture": "gated"},
    "jumprelu": {"architecture": "jumprelu"},
    "normed": {"architecture": "standard", "normalize_activations": "constant_norm_rescale"},
    "layer-normed": {"architecture": "jumprelu", "normalize_activations": "layer_norm"},
    "topk-normed": {"normalize_activations": "layer_norm"},
}
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


@pytest.fixture(scope="module")
def saes(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SAE]:
    folder = tmp_path_factory.mktemp("saes")
    made = {
        name: load_sae(tiny_sae(folder / name, shape=tiny.shape, hook=HOOK, overrides=dict(fields)))
        for name, fields in CONFIGS.items()
    }
    for name in TRANSCODERS:
        hook = Hook("mlp_input", 1)
        made[name] = load_sae(
            tiny_sae(folder / name, shape=tiny.shape, hook=hook, overrides={"architecture": name})
        )
    made["neurons"] = identity_sae(Hook("mlp_post", 1), tiny.shape)
    made["positive neurons"] = identity_sae(Hook("mlp_post", 1), tiny.shape, is_positive_only=True)
    return made


@pytest.fixture(scope="module")
def tokens(tiny: LanguageModel) -> Tensor:
    return torch.tensor([[1, *tiny.tokenize("the cat is in the house by the river and the dog")]])


def hooks_of(sae: SAE) -> tuple[Hook, Hook]:
    if sae.cfg.architecture == "identity":
        return Hook("mlp_post", 1), Hook("mlp_post", 1)
    if sae.cfg.is_transcoder:
        return Hook("mlp_input", 1), Hook("mlp_out", 1)
    return HOOK, HOOK


def after(model: LanguageModel, tokens: Tensor, rows, hook: Hook, window: Window | None = None) -> Tensor:
    window = window or Window.whole(*tokens.shape)
    with edited(model, rows, window):
        return capture(model, tokens, [hook])[hook]


def busiest(sae: SAE, f: Tensor) -> int:
    """A feature that is active on some tokens and not on others, or the one with the largest sum."""
    return int(
        (f.abs().sum(dim=(0, 1)) + 1e3 * ((f != 0).any(dim=1) & (f == 0).any(dim=1)).any(dim=0)).argmax()
    )


def by_formula(sae: SAE, h: Tensor, f: Tensor, index: int, method: str, s: float) -> Tensor:
    """What the table in the contract says, with the delta at the token's own scale."""
    d = sae.decoder_rows(index, index + 1)[0]
    unit = d / d.norm()
    along = (h @ unit).unsqueeze(-1)
    if method == "orthogonal":
        return h - s * along * unit
    if method == "project_cap":
        return h + (s - along).clamp(max=0) * unit
    f_new = f.clone()
    f_new[..., index] = {"add": f[..., index] + s, "clamp": s, "scale": s * f[..., index], "ablate": 0.0}[
        method
    ]
    return h, f_new


def check_silence(tiny: LanguageModel, tokens: Tensor, sae: SAE, index: int) -> None:
    """An ablated feature reads 0, taken out along its own direction; tokens without it keep every bit."""
    hook, _ = hooks_of(sae)
    h = capture(tiny, tokens, [hook])[hook]
    f = sae.encode(h)[..., index]
    change = FeatureChange(sae, hook, hook, index, "ablate")
    got = after(tiny, tokens, [RowChanges((change,))], hook)
    assert (f != 0).any()
    assert torch.equal(got[f == 0], h[f == 0])
    moved = (h - got)[f != 0]
    d = sae.decoder_rows(index, index + 1)[0]
    assert torch.cosine_similarity(moved, d.expand_as(moved), dim=-1).abs().min() > 0.9999
    once = h + feature_delta(sae, h, sae.encode(h), sae.encode(h).index_fill(-1, torch.tensor([index]), 0.0))
    still = sae.encode(once)[..., index]
    helps = (f != 0) & ((f - still) / f > 0.1)  # else more than the most would have to be taken out
    read = sae.encode(got)[..., index][helps]
    if has_token_scale(sae):  # what is taken out changes the norm that the rest is read in
        assert (read <= still[helps] + 1e-4).all()
    else:
        assert (read == 0).all()


@pytest.mark.parametrize("method", FEATURE_METHODS)
@pytest.mark.parametrize("name", [*CONFIGS, *TRANSCODERS, "neurons", "positive neurons"])
def test_features_by_the_formula(tiny: LanguageModel, saes, tokens: Tensor, name: str, method: str):
    sae = saes[name]
    hook, hook_out = hooks_of(sae)
    before = capture(tiny, tokens, [hook, hook_out])
    x, h = before[hook], before[hook_out]
    f = sae.encode(x)
    index = busiest(sae, f)
    expected = by_formula(sae, h, f, index, method, 2.5)
    if method == "ablate" and not sae.cfg.is_transcoder:
        check_silence(tiny, tokens, sae, index)
        return
    if isinstance(expected, tuple):
        expected = h + sae.decode(expected[1], x) - sae.decode(f, x)
    change = FeatureChange(sae, hook, hook_out, index, method, 2.5)
    got = after(tiny, tokens, [RowChanges((change,), protected=frozenset({0}))], hook_out)
    torch.testing.assert_close(got[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
    assert torch.equal(got[:, 0], h[:, 0])
    if method != "project_cap":
        assert not torch.equal(got, h)


@pytest.mark.parametrize("method", FEATURE_METHODS)
def test_directions_by_the_formula(tiny: LanguageModel, tokens: Tensor, method: str):
    v = 3.0 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    unit = v / v.norm()
    h = capture(tiny, tokens, [HOOK])[HOOK]
    along, s = (h @ unit).unsqueeze(-1), -0.4
    expected = {
        "add": h + s * v,
        "clamp": h + (s - along) * unit,
        "scale": h + (s - 1) * along * unit,
        "ablate": h - along * unit,
        "orthogonal": h - s * along * unit,
        "project_cap": h + (s - along).clamp(max=0) * unit,
    }[method]
    got = after(tiny, tokens, [RowChanges((DirectionChange(v, HOOK, method, s),))], HOOK)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(got, h)
    if method == "project_cap":
        assert ((got @ unit) <= s + 1e-5).all()


class TestReadingWhatWasChanged:
    def test_an_ablated_neuron_reads_zero(self, tiny: LanguageModel, saes, tokens: Tensor):
        hook = Hook("mlp_post", 1)
        change = FeatureChange(saes["neurons"], hook, hook, 7, "ablate")
        assert (after(tiny, tokens, [RowChanges((change,))], hook)[..., 7] == 0).all()

    @pytest.mark.parametrize("name", ["standard", "topk"])
    def test_with_an_encoder_that_mirrors_the_decoder_an_ablated_feature_reads_zero(
        self, tiny: LanguageModel, saes, tokens: Tensor, name: str
    ):
        loaded = saes[name]
        weights = dict(loaded.weights)
        rows = weights["W_dec"] / weights["W_dec"].norm(dim=-1, keepdim=True)
        weights |= {"W_dec": rows, "W_enc": 1.001 * rows.T, "b_enc": torch.zeros(96)}
        sae = type(loaded)(loaded.cfg, weights)
        f = sae.encode(capture(tiny, tokens, [HOOK])[HOOK])
        index = busiest(sae, f)
        assert (f[..., index] > 0).any()
        change = FeatureChange(sae, HOOK, HOOK, index, "ablate")
        assert (sae.encode(after(tiny, tokens, [RowChanges((change,))], HOOK))[..., index] == 0).all()

    def test_a_clamped_direction_reads_its_value(self, tiny: LanguageModel, tokens: Tensor):
        v = torch.randn(64, generator=torch.Generator().manual_seed(3))
        got = after(tiny, tokens, [RowChanges((DirectionChange(v, HOOK, "clamp", 7.0),))], HOOK)
        torch.testing.assert_close(got @ (v / v.norm()), torch.full(got.shape[:2], 7.0), rtol=1e-5, atol=1e-4)


class TestOrder:
    def test_features_of_one_sae_read_the_same_stream(self, tiny: LanguageModel, saes, tokens: Tensor):
        sae = saes["standard"]
        x = capture(tiny, tokens, [HOOK])[HOOK]
        f = sae.encode(x)
        a, b, c = f.sum(dim=(0, 1)).topk(3).indices.tolist()
        f_new = f.clone()
        f_new[..., a], f_new[..., b], f_new[..., c] = 5.0, 0.0, (2 * f[..., c] + 1)
        changes = (
            FeatureChange(sae, HOOK, HOOK, a, "clamp", 5.0),
            FeatureChange(sae, HOOK, HOOK, c, "scale", 2.0),
            FeatureChange(sae, HOOK, HOOK, b, "clamp", 0.0),
            FeatureChange(sae, HOOK, HOOK, c, "add", 1.0),  # after the scaling of the same feature
        )
        got = after(tiny, tokens, [RowChanges(changes)], HOOK)
        torch.testing.assert_close(got, x + feature_delta(sae, x, f, f_new), rtol=1e-5, atol=1e-5)

    def test_everything_else_acts_in_the_order_given(self, tiny: LanguageModel, tokens: Tensor):
        v = torch.randn(64, generator=torch.Generator().manual_seed(1))
        add, remove = DirectionChange(v, HOOK, "add", 2.0), DirectionChange(v, HOOK, "ablate")
        first = after(tiny, tokens, [RowChanges((add, remove))], HOOK)
        last = after(tiny, tokens, [RowChanges((remove, add))], HOOK)
        torch.testing.assert_close(last - first, (2.0 * v).expand_as(first), rtol=1e-4, atol=1e-4)

    def test_a_transcoder_reads_the_stream_as_edited_at_its_input(self, tiny: LanguageModel, saes, tokens):
        sae, (hook, out) = saes["transcoder"], hooks_of(saes["transcoder"])
        v = torch.randn(64, generator=torch.Generator().manual_seed(2))
        push = DirectionChange(v, hook, "add", 3.0)
        pushed = [RowChanges((push,))]
        with edited(tiny, pushed, Window.whole(*tokens.shape)):
            seen = capture(tiny, tokens, [hook, out])
        f = sae.encode(seen[hook])
        index = busiest(sae, f)
        both = [RowChanges((FeatureChange(sae, hook, out, index, "ablate"), push))]
        expected = seen[out] - f[..., index, None] * sae.W_dec[index]
        torch.testing.assert_close(after(tiny, tokens, both, out), expected, rtol=1e-5, atol=1e-5)


class TestRowsAndPositions:
    def test_each_row_has_its_own_changes_and_the_others_keep_every_bit(self, tiny, saes, tokens: Tensor):
        batch = tokens.repeat(8, 1)
        v = torch.randn(64, generator=torch.Generator().manual_seed(5))
        topk, standard = saes["topk"], saes["standard"]
        rows = [
            RowChanges(),
            RowChanges((FeatureChange(topk, HOOK, HOOK, 3, "clamp", 4.0),)),
            RowChanges((DirectionChange(v, HOOK, "add", 1.0), DirectionChange(v, HOOK, "project_cap", 0.5))),
            RowChanges(
                (FeatureChange(standard, HOOK, HOOK, 3, "ablate"), DirectionChange(v, HOOK, "ablate"))
            ),
            RowChanges(
                (DirectionChange(v, HOOK, "orthogonal", 0.0), FeatureChange(topk, HOOK, HOOK, 9, "scale"))
            ),
            RowChanges((FeatureChange(topk, HOOK, HOOK, 9, "add", 4.0),)),
            RowChanges((FeatureChange(topk, HOOK, HOOK, 9, "clamp", 4.0), DirectionChange(v, HOOK, "add"))),
            RowChanges((DirectionChange(v, Hook("resid_pre", 1), "clamp", 2.0),)),
        ]
        plain = capture(tiny, batch, [HOOK])[HOOK]
        together = after(tiny, batch, rows, HOOK)
        for number, row in enumerate(rows):
            alone = after(tiny, batch, [row if i == number else RowChanges() for i in range(8)], HOOK)
            torch.testing.assert_close(together[number], alone[number], rtol=1e-5, atol=1e-5)
            untouched = torch.arange(8) != number
            assert torch.equal(alone[untouched], plain[untouched])
        changed = [not torch.equal(a, b) for a, b in zip(together, plain, strict=True)]
        assert changed == [False, True, True, True, False, True, True, True]

    @settings(max_examples=30, deadline=None)
    @given(
        numbers=st.frozensets(st.integers(0, 14)),
        protected=st.frozensets(st.integers(0, 14)),
        prompt_length=st.one_of(st.none(), st.integers(0, 14)),
        words=st.sampled_from(["all", "prompt", "generated", None]),
    )
    def test_positions(self, tiny, tokens: Tensor, numbers, protected, prompt_length, words):
        change = DirectionChange(torch.ones(64), HOOK, "add", 1.0, words or numbers)
        row = RowChanges((change,), prompt_length, protected)
        plain = capture(tiny, tokens, [HOOK])[HOOK]
        got = after(tiny, tokens, [row], HOOK)
        for position in range(tokens.shape[1]):
            is_prompt = prompt_length is None or position < prompt_length
            reached = {
                "all": position not in protected,
                "prompt": position not in protected and is_prompt,
                "generated": position not in protected and not is_prompt,
                None: position in numbers,
            }[words]
            assert torch.equal(got[0, position], plain[0, position]) != reached

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_shifts_nothing_and_is_never_changed(self, tiny, saes, tokens: Tensor, side: str):
        gap, n = 5, tokens.shape[1]
        pad = torch.zeros(1, gap, dtype=torch.int64)
        ones = torch.ones_like(tokens)
        padded = torch.cat([pad, tokens] if side == "left" else [tokens, pad], dim=1)
        mask = torch.cat([pad, ones] if side == "left" else [ones, pad], dim=1)
        changes = (
            FeatureChange(saes["topk"], HOOK, HOOK, 5, "clamp", 6.0, frozenset({2, 4, n, n + 1})),
            DirectionChange(torch.ones(64), HOOK, "add", 1.0, "generated"),
        )
        row = RowChanges(changes, 8, frozenset({0}))
        hook = Hook("resid_post", 3)
        alone = after(tiny, tokens, [row], hook)
        with edited(tiny, [row], Window.padded(mask)):
            got = capture(tiny, padded, [HOOK, hook], mask)
        columns = mask[0].bool()
        torch.testing.assert_close(got[hook][:, columns], alone, rtol=1e-4, atol=1e-4)
        plain = capture(tiny, padded, [HOOK], mask)[HOOK]
        assert torch.equal(got[HOOK][:, ~columns], plain[:, ~columns])

    @pytest.mark.parametrize("kind", ["embed", "resid_pre", "attn_z", "attn_out", "mlp_pre", "mlp_post"])
    def test_other_hooks(self, tiny: LanguageModel, tokens: Tensor, kind):
        hook = Hook(kind, None if kind == "embed" else 2)
        width = 160 if kind in ("mlp_pre", "mlp_post") else 64
        v = torch.randn(width, generator=torch.Generator().manual_seed(4))
        plain, last = capture(tiny, tokens, [hook, Hook("resid_post", 3)]).values()
        rows = [RowChanges((DirectionChange(v, hook, "add", 2.0),))]
        torch.testing.assert_close(after(tiny, tokens, rows, hook), plain + 2 * v, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(after(tiny, tokens, rows, Hook("resid_post", 3)), last)

    def test_what_changes_nothing_is_left_out(self, tiny: LanguageModel, saes, tokens: Tensor):
        neutral = [("add", 0.0), ("scale", 1.0), ("orthogonal", 0.0)]
        changes = [FeatureChange(saes["topk"], HOOK, HOOK, 3, method, s) for method, s in neutral]
        changes += [DirectionChange(torch.ones(64), HOOK, method, s) for method, s in neutral]
        with edited(tiny, [RowChanges(tuple(changes))], Window.whole(*tokens.shape)):
            assert not any(module._forward_hooks for module in tiny.hf.modules())


class TestReading:
    @pytest.mark.parametrize("name", [*CONFIGS, *TRANSCODERS, "neurons", "positive neurons"])
    def test_some_features_equal_all_features(self, saes, name: str):
        sae = saes[name]
        x = torch.randn(3, 5, sae.d_in, generator=torch.Generator().manual_seed(9))
        indices = [7, 3, sae.d_sae - 1, 3]
        got = read_features(sae, indices)(x)
        torch.testing.assert_close(got, sae.encode(x)[..., indices], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("name", [*CONFIGS, *TRANSCODERS, "neurons"])
    def test_a_delta_is_the_difference_of_two_decodings(self, saes, name: str):
        sae = saes[name]
        generator = torch.Generator().manual_seed(9)
        x = torch.randn(3, 5, sae.d_in, generator=generator)
        f = sae.encode(x)
        f_new = f + torch.randn(f.shape, generator=generator) * (torch.arange(sae.d_sae) % 3 == 0)
        expected = sae.decode(f_new, x) - sae.decode(f, x)
        torch.testing.assert_close(feature_delta(sae, x, f, f_new), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(feature_delta(sae, x, f, f), torch.zeros(3, 5, sae.d_out))

    def test_a_delta_is_differentiable(self, saes):
        sae = saes["topk-normed"]
        x = torch.randn(5, 64)
        f_new = sae.encode(x).requires_grad_()
        feature_delta(sae, x, torch.zeros_like(f_new), f_new).sum().backward()
        assert f_new.grad is not None
        assert f_new.grad.abs().sum() > 0


class TestRefusals:
    def feature(self, sae: SAE, **fields) -> FeatureChange:
        hook, out = hooks_of(sae)
        return FeatureChange(
            **({"sae": sae, "hook": hook, "hook_out": out, "index": 0, "method": "add"} | fields)
        )

    @pytest.mark.parametrize("index", [-1, 96])
    def test_a_feature_that_is_not_there(self, tiny: LanguageModel, saes, index: int):
        with pytest.raises(OutOfRange, match=rf"feature: {index} is outside 0\.\.95"):
            check_change(self.feature(saes["topk"], index=index), tiny)

    @pytest.mark.parametrize("strength", [float("nan"), float("inf")])
    def test_a_strength_that_is_no_number(self, tiny: LanguageModel, saes, strength: float):
        for change in (
            self.feature(saes["topk"], strength=strength),
            DirectionChange(torch.ones(64), HOOK, "add", strength),
        ):
            with pytest.raises(OutOfRange, match="strength"):
                check_change(change, tiny)

    def test_an_sae_at_a_hook_of_another_width(self, tiny: LanguageModel, saes):
        with pytest.raises(WidthMismatch, match=r"reads width 64, but blocks\.1\.mlp\.hook_post has 160"):
            check_change(self.feature(saes["topk"], hook=Hook("mlp_post", 1)), tiny)

    @pytest.mark.parametrize(
        "vector", [torch.zeros(64), torch.full((64,), torch.nan), torch.full((64,), torch.inf)]
    )
    def test_vectors_without_a_direction(self, tiny: LanguageModel, vector: Tensor):
        with pytest.raises(OutOfRange, match="Euclidean norm"):
            check_change(DirectionChange(vector, HOOK, "add"), tiny)

    def test_vectors_of_another_width(self, tiny: LanguageModel):
        for shape in ((63,), (1, 64)):
            with pytest.raises(WidthMismatch, match="vector"):
                check_change(DirectionChange(torch.ones(shape), HOOK, "add"), tiny)

    def test_hooks(self, tiny: LanguageModel, saes):
        for layer in (-1, 4):
            with pytest.raises(OutOfRange, match=r"outside 0\.\.3"):
                check_change(DirectionChange(torch.ones(64), Hook("resid_post", layer), "add"), tiny)
        with pytest.raises(UnsupportedHook, match="can be read, not written"):
            check_change(DirectionChange(torch.ones(64), Hook("resid_mid", 1), "add"), tiny)
        late = self.feature(saes["transcoder"], hook=Hook("resid_post", 1))
        with pytest.raises(UnsupportedHook, match="is computed after"):
            check_change(late, tiny)

    def test_negative_positions(self, tiny: LanguageModel):
        with pytest.raises(OutOfRange, match="-1 is negative"):
            check_change(DirectionChange(torch.ones(64), HOOK, "add", positions=frozenset({3, -1})), tiny)

    def test_nothing_stays_behind_after_a_failure(self, tiny: LanguageModel, tokens: Tensor, tmp_path: Path):
        del tmp_path
        rows = [RowChanges((DirectionChange(torch.ones(64), HOOK, "add"),))]
        with pytest.raises(RuntimeError, match="boom"), edited(tiny, rows, Window.whole(*tokens.shape)):
            raise RuntimeError("boom")
        for module in tiny.hf.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
