"""Ablation against plain transformers with hand-written hooks, losses and divergences against torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from interpedia_engine.effects import Ablated, AblationPlan, Dictionary, Metric, Progress, ablate, finish
from interpedia_engine.effects.steps import Pace
from interpedia_engine.errors import EngineError, MissingInput, OutOfRange, UnsupportedHook, WidthMismatch
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import identity_sae
from tests.engine.effects_world import (
    NORMS,
    active_features,
    hooked_logits,
    ids_of,
    make,
    metric_by_hand,
    stream_at,
    without,
)

CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
METRIC = Metric(good=(300, 310), bad=(320,), position=7)


def run(model: LanguageModel, dictionary: Dictionary, features: list[int], **plan: Any):
    means = plan.pop("means", None)
    ablated = [Ablated(dictionary, tuple(features), means)]
    return finish(ablate(model, ids_of(model), ablated, AblationPlan(**plan)))


def by_hand(
    model: LanguageModel, dictionary: Dictionary, features: list[int], new: Any = 0.0, first: int = 1
):
    """Logits without and with the change."""
    tokens = ids_of(model)
    delta = without(dictionary, stream_at(model, tokens, dictionary.hook), features, new, first)
    with torch.no_grad():
        return (
            hooked_logits(model, tokens, []),
            hooked_logits(model, tokens, [(dictionary.written, lambda x: x + delta)]),
        )


def assert_result_is(
    result: Any, default: torch.Tensor, ablated: torch.Tensor, tokens: tuple[int, ...]
) -> None:
    following = torch.tensor(tokens[1:])
    for ours, logits in ((result.losses_default, default), (result.losses_ablated, ablated)):
        assert ours[-1] is None
        expected = functional.cross_entropy(logits[:-1], following, reduction="none")
        torch.testing.assert_close(torch.tensor(ours[:-1]), expected, **CLOSE)
    kl = functional.kl_div(
        ablated.log_softmax(-1), default.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(torch.tensor(result.kl), kl, **CLOSE)


ARCHITECTURES = ("standard", "gated", "topk", "abstopk", "jumprelu")
CASES = [(name, "none", Hook("resid_post", 1)) for name in ARCHITECTURES]
CASES += [("standard", norm, Hook("resid_post", 2)) for norm in NORMS[1:]]
CASES += [
    ("topk", "none", Hook(kind, 2)) for kind in ("resid_pre", "attn_out", "attn_z", "mlp_out", "mlp_post")
]
CASES += [("topk", "none", Hook("resid_post", 3)), ("topk", "none", Hook("resid_pre", 0))]
CASES += [("topk", "none", Hook("embed", None)), ("identity", "none", Hook("mlp_post", 1))]
CASES += [
    ("transcoder", "none", Hook("mlp_input", 1)),
    ("jumprelu_skip_transcoder", "none", Hook("mlp_in", 2)),
]


@pytest.mark.parametrize(("architecture", "norm", "hook"), CASES)
def test_it_equals_a_hand_written_hook(tiny: LanguageModel, tmp_path: Path, architecture, norm, hook):
    fields = {} if norm == "none" else {"normalize_activations": norm}
    dictionary = make(tmp_path, tiny.shape, hook, architecture, **fields)
    tokens = ids_of(tiny)
    features = active_features(dictionary, stream_at(tiny, tokens, hook), 5)
    result = run(tiny, dictionary, features, metric=METRIC, k=4)
    default, ablated = by_hand(tiny, dictionary, features)
    assert_result_is(result, default, ablated, tokens)
    assert sum(result.kl) > 1e-3, "the features should matter, or the test says nothing"
    assert result.position == 7
    assert result.metric is not None
    assert result.metric.default == pytest.approx(metric_by_hand(default, METRIC).item(), abs=1e-4)
    assert result.metric.ablated == pytest.approx(metric_by_hand(ablated, METRIC).item(), abs=1e-4)
    assert result.metric.logits_ablated[320] == pytest.approx(ablated[7, 320].item(), abs=1e-4)
    change = (ablated - default)[7]
    for shifts, sign in ((result.rose, 1), (result.fell, -1)):
        expected = (sign * change).topk(4).values
        expected = expected[expected > 0]  # above the last block, only positions of the features move
        ours = torch.tensor([sign * (one.logit_ablated - one.logit_default) for one in shifts])
        torch.testing.assert_close(ours, expected, **CLOSE)
        for one in shifts:
            assert one.logprob_ablated == pytest.approx(
                ablated[7].log_softmax(-1)[one.token_id].item(), abs=1e-4
            )


def test_rescaled_topk(tiny: LanguageModel, tmp_path: Path):
    dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1), "topk", rescale_acts_by_decoder_norm=True)
    features = active_features(dictionary, stream_at(tiny, ids_of(tiny), dictionary.hook), 5)
    assert_result_is(run(tiny, dictionary, features), *by_hand(tiny, dictionary, features), ids_of(tiny))


class TestMethods:
    @pytest.fixture
    def dictionary(self, tiny: LanguageModel, tmp_path: Path) -> Dictionary:
        return make(tmp_path, tiny.shape, Hook("resid_post", 1), "jumprelu")

    @pytest.fixture
    def features(self, tiny: LanguageModel, dictionary: Dictionary) -> list[int]:
        return active_features(dictionary, stream_at(tiny, ids_of(tiny), dictionary.hook), 3)

    def test_mean(self, tiny, dictionary, features):
        means = (0.5, 1.25, 0.0)
        result = run(tiny, dictionary, features, method="mean", means=means)
        assert_result_is(result, *by_hand(tiny, dictionary, features, torch.tensor(means)), ids_of(tiny))
        assert result.n_positions_changed == len(ids_of(tiny)) - 1

    def test_resample(self, tiny, dictionary, features):
        other = ids_of(tiny, "red and green city light")
        result = run(tiny, dictionary, features, method="resample", resample_tokens=other, seed=3)
        f = dictionary.sae.encode(stream_at(tiny, other, dictionary.hook))[1:, features]
        order = torch.randperm(len(other) - 1, generator=torch.Generator().manual_seed(3))
        n = len(ids_of(tiny))
        new = f[order][torch.arange(n) % len(f)][1:]
        assert_result_is(result, *by_hand(tiny, dictionary, features, new), ids_of(tiny))

    def test_resampling_is_seeded(self, tiny, dictionary, features):
        other = ids_of(tiny, "red and green city light")
        first, again, another = (
            run(tiny, dictionary, features, method="resample", resample_tokens=other, seed=seed)
            for seed in (1, 1, 2)
        )
        assert first == again
        assert first.kl != another.kl

    def test_positions(self, tiny, dictionary, features):
        tokens = ids_of(tiny)
        result = run(tiny, dictionary, features, positions=(5, 3))
        delta = without(dictionary, stream_at(tiny, tokens, dictionary.hook), features)
        keep = torch.zeros(len(tokens), 1)
        keep[[3, 5]] = 1
        with torch.no_grad():
            ablated = hooked_logits(tiny, tokens, [(dictionary.hook, lambda x: x + keep * delta)])
            default = hooked_logits(tiny, tokens, [])
        assert_result_is(result, default, ablated, tokens)
        assert max(result.kl[:3]) < 1e-9
        assert result.n_positions_changed <= 2

    def test_bos_is_left_alone_unless_it_is_named(self, tiny, dictionary):
        features = active_features(dictionary, stream_at(tiny, ids_of(tiny), dictionary.hook)[:1], 3, first=0)
        assert run(tiny, dictionary, features).kl[0] < 1e-9
        named = run(tiny, dictionary, features, positions=tuple(range(len(ids_of(tiny)))))
        assert named.kl[0] > 1e-6
        assert_result_is(named, *by_hand(tiny, dictionary, features, first=0), ids_of(tiny))

    def test_features_that_are_silent_change_nothing(self, tiny, dictionary):
        f = dictionary.sae.encode(stream_at(tiny, ids_of(tiny), dictionary.hook))
        silent = (f == 0).all(0).nonzero().flatten()[:4].tolist()
        result = run(tiny, dictionary, silent, metric=METRIC)
        assert result.n_positions_changed == 0
        assert max(result.kl) < 1e-9
        assert result.metric.default == pytest.approx(result.metric.ablated, abs=1e-5)

    def test_without_the_error_term_it_would_be_another_number(self, tiny, dictionary, features):
        """The control: replacing the stream by a reconstruction is a different thing."""
        tokens = ids_of(tiny)
        x = stream_at(tiny, tokens, dictionary.hook)
        f = dictionary.sae.encode(x)
        f[1:, features] = 0
        with torch.no_grad():
            default = hooked_logits(tiny, tokens, [])
            wrong = hooked_logits(tiny, tokens, [(dictionary.hook, lambda _: dictionary.sae.decode(f)[None])])
        with pytest.raises(AssertionError):
            assert_result_is(run(tiny, dictionary, features), default, wrong, tokens)


def test_a_higher_dictionary_reads_what_a_lower_one_left(tiny: LanguageModel, tmp_path: Path):
    low = make(tmp_path, tiny.shape, Hook("resid_post", 0), "standard")
    high = make(tmp_path, tiny.shape, Hook("resid_post", 2), "standard")
    tokens = ids_of(tiny)
    chosen = {one: active_features(one, stream_at(tiny, tokens, one.hook), 4) for one in (low, high)}
    result = finish(
        ablate(tiny, tokens, [Ablated(one, tuple(chosen[one])) for one in (high, low)], AblationPlan())
    )

    def change(one: Dictionary):
        return lambda x: x + without(one, x[0], chosen[one])[None]

    with torch.no_grad():
        ablated = hooked_logits(tiny, tokens, [(one.hook, change(one)) for one in (low, high)])
        default = hooked_logits(tiny, tokens, [])
    assert_result_is(result, default, ablated, tokens)


def test_it_pauses_often_and_holds_nothing_while_it_waits(tiny: LanguageModel, tmp_path: Path):
    dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 1))
    steps = ablate(tiny, ids_of(tiny), [Ablated(dictionary, (1, 2))], AblationPlan(), Pace(block_tokens=4))
    clean = hooked_logits(tiny, ids_of(tiny), [])
    seen = 0
    while True:
        try:
            assert isinstance(next(steps), Progress)
        except StopIteration as end:
            whole = end.value
            break
        assert torch.equal(hooked_logits(tiny, ids_of(tiny), []), clean)
        seen += 1
    assert seen > 6
    plain = finish(ablate(tiny, ids_of(tiny), [Ablated(dictionary, (1, 2))], AblationPlan()))
    assert whole.kl == pytest.approx(plain.kl, abs=1e-5)


def test_resampling_runs_no_block_above_the_features(tiny: LanguageModel, tmp_path: Path):
    dictionary = make(tmp_path, tiny.shape, Hook("resid_post", 0))
    runs: list[int] = []
    handle = tiny.hf.model.layers[-1].register_forward_hook(lambda _m, _args, out: runs.append(1))
    try:
        run(tiny, dictionary, [1], method="resample", resample_tokens=(1, 40, 50, 60))
    finally:
        handle.remove()
    assert len(runs) == 2, "with the features and without"


class TestRefusals:
    def refused(
        self, model: LanguageModel, dictionary: Dictionary, error: type[EngineError], match: str, **plan: Any
    ):
        features = plan.pop("features", (1,))
        tokens = plan.pop("tokens", ids_of(model))
        ablated = [Ablated(dictionary, features, plan.pop("means", None))] * plan.pop("times", 1)
        with pytest.raises(error, match=match):
            next(ablate(model, tokens, ablated, AblationPlan(**plan)))

    def test_each(self, tiny: LanguageModel, tmp_path: Path):
        d = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        self.refused(tiny, d, OutOfRange, r"feature: 96 is outside 0\.\.95", features=(96,))
        self.refused(tiny, d, OutOfRange, r"feature: -1 is outside", features=(-1,))
        self.refused(tiny, d, OutOfRange, "none of", features=())
        self.refused(tiny, d, OutOfRange, "named twice", features=(3, 3))
        self.refused(tiny, d, OutOfRange, "named twice", times=2)
        self.refused(tiny, d, OutOfRange, "at least one is needed", times=0)
        self.refused(tiny, d, OutOfRange, r"tokens: 1 to 512 tokens", tokens=())
        self.refused(tiny, d, OutOfRange, r"tokens: 1 to 512 tokens are needed, not 513", tokens=(1,) * 513)
        self.refused(tiny, d, OutOfRange, r"tokens: token id 526", tokens=(1, 526))
        self.refused(tiny, d, OutOfRange, r"positions: 99 is outside", positions=(99,))
        self.refused(tiny, d, OutOfRange, r"k: -1 is outside", k=-1)
        self.refused(tiny, d, MissingInput, "means: a mean for each", method="mean")
        self.refused(tiny, d, MissingInput, "means: a mean for each", method="mean", means=(1.0, 2.0))
        self.refused(tiny, d, MissingInput, "resample_tokens: resampling needs", method="resample")
        self.refused(tiny, d, OutOfRange, "no token behind BOS", method="resample", resample_tokens=(1,))

    @pytest.mark.parametrize(
        ("metric", "match"),
        [
            (Metric(()), "metric.good: at least one"),
            (Metric((526,)), "metric.good: token id 526"),
            (Metric((5,), (-1,)), "metric.bad: token id -1"),
            (Metric((5, 6), (6,)), "metric.bad: token id 6 is in good as well"),
            (Metric((5,), position=99), "metric.position: 99 is outside"),
            (Metric((5,), position=-1), "metric.position: -1 is outside"),
        ],
    )
    def test_metrics(self, tiny: LanguageModel, tmp_path: Path, metric: Metric, match: str):
        self.refused(
            tiny, make(tmp_path, tiny.shape, Hook("resid_post", 1)), OutOfRange, match, metric=metric
        )

    def test_hooks(self, tiny: LanguageModel, tmp_path: Path):
        d = make(tmp_path, tiny.shape, Hook("resid_post", 1))
        wide = Dictionary("wide", d.sae, Hook("mlp_post", 1))
        self.refused(tiny, wide, WidthMismatch, "wide reads width 64, but blocks.1.mlp.hook_post has 160")
        mid = Dictionary("mid", identity_sae(Hook("resid_mid", 1), tiny.shape), Hook("resid_mid", 1))
        with pytest.raises(UnsupportedHook, match="can be read, not written"):
            finish(ablate(tiny, ids_of(tiny), [Ablated(mid, (1,))], AblationPlan()))
