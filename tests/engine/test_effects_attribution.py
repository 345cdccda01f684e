"""Gradients against autograd by hand, exact effects against plain transformers with hand-written hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interpedia_engine.effects import (
    AttributionPlan,
    Case,
    Dictionary,
    FeatureKey,
    Metric,
    Pace,
    attribute,
    exact_effects,
    finish,
)
from interpedia_engine.effects.clean import Setting, clean_run
from interpedia_engine.effects.decoding import rows_of
from interpedia_engine.effects.faithfulness import faithfulness
from interpedia_engine.errors import EngineError, MissingInput, OutOfRange, UnsupportedHook
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import identity_sae
from tests.engine.effects_world import (
    NORMS,
    active_features,
    case_of,
    hooked_logits,
    ids_of,
    make,
    metric_by_hand,
    stream_at,
    without,
)

CORRUPT = "the dog and the cat were in the house by the river when we had music"
KINDS = [
    (name, "none", Hook("resid_post", 1)) for name in ("standard", "gated", "topk", "abstopk", "jumprelu")
]
KINDS += [("standard", norm, Hook("resid_post", 2)) for norm in NORMS[1:]]
KINDS += [
    ("topk", "none", Hook(kind, 2)) for kind in ("resid_pre", "attn_out", "attn_z", "mlp_out", "mlp_post")
]
KINDS += [("topk", "none", Hook("resid_post", 3)), ("topk", "none", Hook("embed", None))]
KINDS += [("identity", "none", Hook("mlp_post", 1)), ("skip_transcoder", "none", Hook("mlp_in", 2))]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}-{kind[2].name}")
def dictionary(request: pytest.FixtureRequest, tiny: LanguageModel, tmp_path: Path) -> Dictionary:
    architecture, norm, hook = request.param
    fields = {} if norm == "none" else {"normalize_activations": norm}
    return make(tmp_path, tiny.shape, hook, architecture, **fields)


def gradient_by_hand(model: LanguageModel, case: Case, dictionary: Dictionary, share: float = 1.0):
    """f and ∂m/∂f by autograd through the SAE's own dense decoder, the error detached; `[pos d_sae]`."""
    x = stream_at(model, case.tokens, dictionary.hook)
    f = dictionary.sae.encode(x).detach()
    scaled = f.clone()
    scaled[1:] *= share
    leaf = scaled.requires_grad_()
    base = dictionary.sae.decode(f, x).detach()

    def splice(y: torch.Tensor) -> torch.Tensor:
        return dictionary.sae.decode(leaf, x) + (y - base).detach()

    with torch.enable_grad():
        logits = hooked_logits(model, case.tokens, [(dictionary.written, splice)])
        metric = metric_by_hand(logits, Metric(case.metric.good, case.metric.bad, case.position))
        (gradient,) = torch.autograd.grad(metric, leaf)
    gradient[0] = 0
    return f, gradient


def table_of(result: Any, d_sae: int, n_positions: int, number: int = 0) -> torch.Tensor:
    table = torch.zeros(n_positions, d_sae)
    for one in result.results:
        if one.key.dictionary == number:
            table[:, one.key.feature] = torch.tensor(one.by_position)
            assert one.attribution == pytest.approx(sum(one.by_position), abs=1e-4)
    return table


def attributed(model: LanguageModel, case: Case, *dictionaries: Dictionary, **plan: Any):
    return finish(attribute(model, case, dictionaries, AttributionPlan(**({"k": 1000, "exact": 0} | plan))))


@pytest.mark.parametrize("position", [None, 9])
def test_gradient_times_activation_is_autograds(tiny: LanguageModel, dictionary: Dictionary, position):
    case = case_of(tiny, metric=Metric((300, 310), (320,), position))
    f, gradient = gradient_by_hand(tiny, case, dictionary)
    result = attributed(tiny, case, dictionary)
    ours = table_of(result, dictionary.sae.d_sae, len(case.tokens))
    torch.testing.assert_close(ours, f * gradient, rtol=1e-3, atol=1e-5)
    assert ours.abs().max() > 1e-3
    with torch.no_grad():
        expected = metric_by_hand(hooked_logits(tiny, case.tokens, []), case.metric)
    assert result.metric == pytest.approx(expected.item(), abs=1e-4)
    assert [abs(one.attribution) for one in result.results] == sorted(
        (abs(one.attribution) for one in result.results), reverse=True
    )
    first = result.results[0]
    column = f[1 : case.position + 1, first.key.feature]
    assert first.max_activation == pytest.approx(column[column.abs().argmax()].item(), abs=1e-4)


def test_attribution_patching(tiny: LanguageModel, dictionary: Dictionary):
    case = case_of(tiny, corrupt=ids_of(tiny, CORRUPT))
    f, gradient = gradient_by_hand(tiny, case, dictionary)
    corrupt = dictionary.sae.encode(stream_at(tiny, ids_of(tiny, CORRUPT), dictionary.hook))
    result = attributed(tiny, case, dictionary, method="attribution_patching", exact=2)
    ours = table_of(result, dictionary.sae.d_sae, len(case.tokens))
    torch.testing.assert_close(ours, (f - corrupt) * gradient, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        expected = metric_by_hand(hooked_logits(tiny, ids_of(tiny, CORRUPT), []), case.metric)
    assert result.metric_corrupt == pytest.approx(expected.item(), abs=1e-4)
    for one in result.results[:2]:
        i = one.key.feature
        assert one.exact == pytest.approx(
            effect_by_hand(tiny, case, dictionary, i, corrupt[1:, [i]]), abs=2e-4
        )


def test_integrated_gradients(tiny: LanguageModel, tmp_path: Path):
    dictionary = make(tmp_path, tiny.shape, Hook("mlp_in", 2), "skip_transcoder")
    case = case_of(tiny)
    f = gradient_by_hand(tiny, case, dictionary)[0]
    slopes = [gradient_by_hand(tiny, case, dictionary, (s + 0.5) / 3)[1] for s in range(3)]
    result = attributed(tiny, case, dictionary, method="integrated_gradients", steps=3)
    ours = table_of(result, dictionary.sae.d_sae, len(case.tokens))
    torch.testing.assert_close(ours, f * torch.stack(slopes).mean(0), rtol=1e-3, atol=1e-5)


def test_integrated_gradients_add_up_and_plain_ones_do_not(tiny: LanguageModel, tmp_path: Path):
    """With many steps the attributions sum to what all features together do: the axiom of completeness."""
    dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1), "topk")
    case = case_of(tiny)
    x = stream_at(tiny, case.tokens, dictionary.hook)
    delta = without(dictionary, x, list(range(dictionary.sae.d_sae)))
    with torch.no_grad():
        everything = metric_by_hand(hooked_logits(tiny, case.tokens, []), case.metric)
        nothing = metric_by_hand(
            hooked_logits(tiny, case.tokens, [(dictionary.hook, lambda y: y + delta)]), case.metric
        )
    expected = (everything - nothing).item()
    totals = {
        method: sum(
            one.attribution for one in attributed(tiny, case, dictionary, method=method, steps=200).results
        )
        for method in ("integrated_gradients", "gradient_x_activation")
    }
    assert totals["integrated_gradients"] == pytest.approx(expected, abs=5e-3)
    assert abs(totals["gradient_x_activation"] - expected) > 5e-2


def effect_by_hand(
    model: LanguageModel, case: Case, dictionary: Dictionary, feature: int, new: Any = 0.0
) -> float:
    x = stream_at(model, case.tokens, dictionary.hook)
    delta = without(dictionary, x, [feature], new)
    metric = Metric(case.metric.good, case.metric.bad, case.position)
    with torch.no_grad():
        before = metric_by_hand(hooked_logits(model, case.tokens, []), metric)
        after = metric_by_hand(
            hooked_logits(model, case.tokens, [(dictionary.written, lambda y: y + delta)]), metric
        )
    return (before - after).item()


class TestExactEffects:
    def test_they_equal_hand_written_hooks(self, tiny: LanguageModel, dictionary: Dictionary):
        texts = ("the cat and the dog", "music in the city by the water was red", "we had the time")
        cases = [case_of(tiny, text) for text in texts]
        cases.append(case_of(tiny, metric=Metric((300,), (), 6)))
        features = active_features(dictionary, stream_at(tiny, cases[1].tokens, dictionary.hook), 4)
        keys = [FeatureKey(0, feature) for feature in features]
        effects = finish(exact_effects(tiny, cases, [dictionary], keys))
        for key, row in zip(keys, effects, strict=True):
            expected = [effect_by_hand(tiny, case, dictionary, key.feature) for case in cases]
            assert row == pytest.approx(expected, abs=2e-4)
        assert max(abs(value) for row in effects for value in row) > 1e-2

    def test_patching(self, tiny: LanguageModel, tmp_path: Path):
        dictionary = make(
            tmp_path, tiny.shape, Hook("resid_post", 1), "standard", normalize_activations="layer_norm"
        )
        case = case_of(tiny, corrupt=ids_of(tiny, CORRUPT))
        corrupt = dictionary.sae.encode(stream_at(tiny, ids_of(tiny, CORRUPT), dictionary.hook))
        features = active_features(dictionary, stream_at(tiny, case.tokens, dictionary.hook), 3)
        effects = finish(
            exact_effects(
                tiny, [case], [dictionary], [FeatureKey(0, i) for i in features], replacement="corrupt"
            )
        )
        for feature, (effect,) in zip(features, effects, strict=True):
            expected = effect_by_hand(tiny, case, dictionary, feature, corrupt[1:, [feature]])
            assert effect == pytest.approx(expected, abs=2e-4)

    def test_a_corrupt_prompt_equal_to_the_clean_one_does_nothing(self, tiny: LanguageModel, tmp_path: Path):
        dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        case = case_of(tiny, corrupt=ids_of(tiny))
        features = active_features(dictionary, stream_at(tiny, case.tokens, dictionary.hook), 3)
        keys = [FeatureKey(0, i) for i in features]
        assert finish(exact_effects(tiny, [case], [dictionary], keys, replacement="corrupt")) == [[0.0]] * 3

    def test_where_a_feature_is_silent_nothing_is_run(self, tiny: LanguageModel, tmp_path: Path):
        dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        case = case_of(tiny)
        f = dictionary.sae.encode(stream_at(tiny, case.tokens, dictionary.hook))
        silent = (f == 0).all(0).nonzero().flatten()[:5].tolist()
        steps = exact_effects(tiny, [case], [dictionary], [FeatureKey(0, i) for i in silent])
        assert [next(steps).phase, next(steps).phase] == ["clean run", "ablations"]
        with pytest.raises(StopIteration) as end:
            next(steps)
        assert end.value.value == [[0.0]] * 5

    def test_the_size_of_a_step_changes_nothing(self, tiny: LanguageModel, tmp_path: Path):
        dictionaries = [make(tmp_path, tiny.shape, Hook("resid_post", layer)) for layer in (0, 2)]
        cases = [case_of(tiny, text) for text in ("the cat and the dog", "we had the music in the house")]
        keys = [
            FeatureKey(number, feature)
            for number, one in enumerate(dictionaries)
            for feature in active_features(one, stream_at(tiny, cases[1].tokens, one.hook), 6)
        ]
        counts: list[int] = []
        results: list[list[list[float]]] = []
        for pace in (Pace(1), Pace(100), Pace(10**6)):
            steps = exact_effects(tiny, cases, dictionaries, keys, pace=pace)
            counts.append(0)
            try:
                while True:
                    next(steps)
                    counts[-1] += 1
            except StopIteration as end:
                results.append(end.value)
        assert counts[0] > counts[1] > counts[2]
        for other in results[1:]:
            torch.testing.assert_close(torch.tensor(other), torch.tensor(results[0]), rtol=1e-4, atol=1e-5)


def test_exact_effects_come_first_and_rank(tiny: LanguageModel, tmp_path: Path):
    dictionaries = [make(tmp_path, tiny.shape, Hook("resid_post", layer)) for layer in (0, 2)]
    result = attributed(tiny, case_of(tiny), *dictionaries, k=12, exact=7)
    exact = [abs(one.exact) for one in result.results if one.exact is not None]
    assert len(result.results) == 12
    assert len(exact) == 7
    assert exact == sorted(exact, reverse=True)
    assert all(one.exact is None for one in result.results[7:])
    assert {one.key.dictionary for one in result.results} == {0, 1}


def test_several_dictionaries_give_what_each_gives_alone(tiny: LanguageModel, tmp_path: Path):
    dictionaries = [
        make(tmp_path, tiny.shape, hook, kind)
        for hook, kind in (
            (Hook("resid_post", 0), "topk"),
            (Hook("mlp_in", 1), "transcoder"),
            (Hook("resid_post", 2), "standard"),
        )
    ]
    case = case_of(tiny)
    together = attributed(tiny, case, *dictionaries)
    for number, one in enumerate(dictionaries):
        size = (one.sae.d_sae, len(case.tokens))
        alone = table_of(attributed(tiny, case, one), *size)
        torch.testing.assert_close(table_of(together, *size, number), alone, rtol=1e-3, atol=1e-5)


def test_it_works_under_inference_mode_and_leaves_it(tiny: LanguageModel, tmp_path: Path):
    dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
    with torch.inference_mode():
        sae_of_inference = make(tmp_path / "other", tiny.shape, Hook("resid_post", 1))
        for one in (dictionary, sae_of_inference):
            result = attributed(tiny, case_of(tiny), one, exact=2)
            assert torch.is_inference_mode_enabled()
            assert result.results[0].exact is not None
    assert all(parameter.grad is None for parameter in tiny.hf.parameters())


def test_closing_it_midway_leaves_nothing(tiny: LanguageModel, tmp_path: Path):
    dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
    before = hooked_logits(tiny, ids_of(tiny), [])
    steps = attribute(tiny, case_of(tiny), [dictionary], AttributionPlan(), Pace(1))
    for _ in range(3):
        next(steps)
        assert torch.equal(hooked_logits(tiny, ids_of(tiny), []), before)
    steps.close()
    assert torch.equal(hooked_logits(tiny, ids_of(tiny), []), before)


def test_rows_equal_the_saes_own(tiny: LanguageModel, tmp_path: Path):
    for fields in ({}, {"rescale_acts_by_decoder_norm": True}):
        sae = make(tmp_path, tiny.shape, Hook("resid_post", 1), "topk", **fields).sae
        torch.testing.assert_close(rows_of(sae, torch.tensor([5, 2, 5])), sae.decoder_rows(0, 96)[[5, 2, 5]])
    neurons = identity_sae(Hook("mlp_post", 0), tiny.shape)
    torch.testing.assert_close(rows_of(neurons, torch.tensor([7])), neurons.decoder_rows(7, 8))


class TestFaithfulness:
    def test_the_ends_and_the_middle(self, tiny: LanguageModel, tmp_path: Path):
        dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        cases = [case_of(tiny, text) for text in ("the cat and the dog", "we had the music in the house")]
        setting = Setting(tiny, [dictionary], "zero", Pace())
        cleans = finish(clean_run(setting, cases))
        ranked = active_features(dictionary, stream_at(tiny, cases[0].tokens, dictionary.hook), 10)
        ranked += [i for i in range(96) if i not in ranked]
        curve = finish(faithfulness(setting, cleans, 0, ranked, [3, 96]))
        kept, removed, none = [], [], []
        for case in cases:
            x = stream_at(tiny, case.tokens, dictionary.hook)
            for features, into in ((ranked[3:], kept), (ranked[:3], removed), (ranked, none)):
                delta = without(dictionary, x, features)
                with torch.no_grad():
                    logits = hooked_logits(tiny, case.tokens, [(dictionary.hook, lambda y, d=delta: y + d)])
                into.append(metric_by_hand(logits, case.metric).item())
        everything = sum(clean.metric for clean in cleans) / 2
        assert curve.metric_none == pytest.approx(sum(none) / 2, abs=1e-4)
        assert curve.metric_all == pytest.approx(everything, abs=1e-5)
        some, whole = curve.points
        assert some.metric_kept == pytest.approx(sum(kept) / 2, abs=1e-4)
        assert some.metric_removed == pytest.approx(sum(removed) / 2, abs=1e-4)
        spread = everything - sum(none) / 2
        assert some.faithfulness == pytest.approx((sum(kept) - sum(none)) / 2 / spread, abs=1e-3)
        assert whole.faithfulness == pytest.approx(1.0, abs=1e-4)
        assert whole.removed_share == pytest.approx(1.0, abs=1e-4)

    def test_where_all_and_none_are_equal_it_is_unknown(self, tiny: LanguageModel, tmp_path: Path):
        dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        setting = Setting(tiny, [dictionary], "corrupt", Pace())
        cleans = finish(clean_run(setting, [case_of(tiny, corrupt=ids_of(tiny))]))
        curve = finish(faithfulness(setting, cleans, 0, [1, 2], [1]))
        assert curve.points[0].faithfulness is None
        assert curve.points[0].removed_share is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "plan", "error", "match"),
        [
            ({}, {"k": 0}, OutOfRange, "k: at least 1"),
            ({}, {"steps": 0}, OutOfRange, "steps: at least 1"),
            ({}, {"exact": -1}, OutOfRange, "exact: at least 0"),
            ({}, {"method": "attribution_patching"}, MissingInput, "corrupt: patching needs"),
            ({"corrupt": (1, 2)}, {}, OutOfRange, "corrupt: has 2 tokens, but the prompt has 26"),
            ({"metric": Metric((5,), (5,))}, {}, OutOfRange, "metric.bad"),
        ],
    )
    def test_plans(self, tiny: LanguageModel, tmp_path: Path, fields, plan, error: type[EngineError], match):
        dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        with pytest.raises(error, match=match):
            attributed(tiny, case_of(tiny, **fields), dictionary, **plan)

    def test_candidates(self, tiny: LanguageModel, tmp_path: Path):
        dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        for key, match in (
            (FeatureKey(1, 0), "dictionary: 1 is outside"),
            (FeatureKey(0, 96), "feature: 96"),
        ):
            with pytest.raises(OutOfRange, match=match):
                finish(exact_effects(tiny, [case_of(tiny)], [dictionary], [key]))

    def test_a_hook_that_cannot_be_written(self, tiny: LanguageModel):
        hook = Hook("resid_mid", 1)
        with pytest.raises(UnsupportedHook, match="can be read, not written"):
            attributed(tiny, case_of(tiny), Dictionary("mid", identity_sae(hook, tiny.shape), hook))

    def test_a_pace_of_nothing(self):
        with pytest.raises(OutOfRange, match="block_tokens: at least 1"):
            Pace(0)
