"""Metrics against scipy and against brute force; intervals against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interpedia_autointerp.statistics import (
    auroc,
    average_precision,
    balanced_accuracy,
    brier,
    draw_weights,
    estimate,
    explained_variance,
    holm,
    kendall_tau,
    mean_interval,
    paired_difference,
    pearson,
    percentiles,
    population_f1,
    population_precision,
    sign_test,
    weighted,
    wilson,
)

# few distinct values, so that ties are the rule
ITEMS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30)
PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=30)


def _split(items: list[tuple[int, bool]]) -> tuple[list[float], list[bool]]:
    return [float(score) for score, _ in items], [truth for _, truth in items]


@given(ITEMS)
def test_auroc_is_mann_whitney_over_all_pairs(items):
    scores, truths = _split(items)
    true = [s for s, y in zip(scores, truths, strict=True) if y]
    false = [s for s, y in zip(scores, truths, strict=True) if not y]
    found = auroc(scores, truths)
    if not true or not false:
        assert found is None
        return
    assert found == pytest.approx(stats.mannwhitneyu(true, false).statistic / (len(true) * len(false)))


@given(ITEMS)
def test_average_precision_is_the_area_of_its_own_steps(items):
    scores, truths = _split(items)
    found = average_precision(scores, truths)
    if not any(truths):
        assert found is None
        return
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [y for s, y in zip(scores, truths, strict=True) if s >= threshold]
        recall = sum(taken) / sum(truths)
        area += (recall - before) * sum(taken) / len(taken)
        before = recall
    assert found == pytest.approx(area)


@given(PAIRS)
def test_pearson_and_kendall_agree_with_scipy(pairs):
    p, a = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    r, tau = pearson(p, a), kendall_tau(p, a)
    if len(set(a)) == 1:
        assert r is None
        assert tau is None
    elif len(set(p)) == 1:
        assert r == 0.0
        assert tau is None
    else:
        assert r == pytest.approx(stats.pearsonr(p, a).statistic, abs=1e-9)
        assert tau == pytest.approx(stats.kendalltau(p, a).statistic)
        assert explained_variance(p, a) == pytest.approx(r * r)


@given(ITEMS)
@settings(max_examples=50)
def test_the_weighted_forms_are_the_plain_ones_on_items_written_out(items):
    scores, truths = _split(items)
    counts = np.random.default_rng(len(items)).integers(0, 3, len(items))
    out = [number for number, count in enumerate(counts) for _ in range(count)]
    scores_out, truths_out = [scores[i] for i in out], [truths[i] for i in out]
    credit = [float(score > 2) for score in scores]
    plain = {
        "auroc": auroc(scores_out, truths_out),
        "average_precision": average_precision(scores_out, truths_out) if out else None,
        "balanced_accuracy": balanced_accuracy([credit[i] for i in out], truths_out),
    }
    drawn = counts[None, :].astype(float)
    many = {
        "auroc": weighted.auroc(scores, truths)(drawn)[0],
        "average_precision": weighted.average_precision(scores, truths)(drawn)[0],
        "balanced_accuracy": weighted.balanced_accuracy(credit, truths)(drawn)[0],
    }
    for name, value in plain.items():
        if value is None:
            assert math.isnan(many[name]), name
        else:
            assert many[name] == pytest.approx(value), name


def test_weighted_pearson_is_over_all_tokens_of_the_drawn_sequences():
    rng = np.random.default_rng(1)
    actual = [rng.gamma(1.0, 1.0, size) for size in (3, 5, 7)]
    predicted = [row + rng.normal(size=len(row)) for row in actual]
    drawn = np.array([[1.0, 1, 1], [2, 0, 1], [0, 0, 0]])
    found = weighted.pearson(predicted, actual)(drawn)
    out = np.concatenate([predicted[0], predicted[0], predicted[2]])
    truth = np.concatenate([actual[0], actual[0], actual[2]])
    assert found[0] == pytest.approx(pearson(np.concatenate(predicted), np.concatenate(actual)))
    assert found[1] == pytest.approx(stats.pearsonr(out, truth).statistic)
    assert math.isnan(found[2])
    # far from zero, a constant prediction is still constant
    assert weighted.pearson([[0.1, 0.1, 0.1]], [[0.0, 1.0, 3.0]])(np.ones((1, 1)))[0] == 0.0
    assert math.isnan(weighted.pearson([[0.0, 1.0]], [[0.1, 0.1]])(np.ones((1, 1)))[0])


@pytest.mark.parametrize("n", [1, 5, 40])
def test_wilson_is_scipys(n):
    for k in range(n + 1):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) is None


def test_the_sign_test_is_scipys():
    for wins in range(8):
        for losses in range(8):
            if wins + losses:
                assert sign_test(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert sign_test(0, 0) == 1.0


def test_brier_of_one_half_is_a_quarter():
    assert brier([0.5, 0.5, 0.5], [True, False, False]) == 0.25
    assert brier([], []) is None


def test_holm_steps_down():
    # by hand: sorted .01·3, .02·2, .03·1 made monotone
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_population_precision_sees_what_a_balanced_sample_does_not():
    # fires in 1 % of windows; the explanation fits twice as many, so also 1 % of the silent ones
    precision = population_precision(1.0, 0.01 / 0.99, 0.01)
    assert precision == pytest.approx(0.5)
    assert (1.0 + (1 - 0.01 / 0.99)) / 2 > 0.994
    assert population_f1(1.0, 0.01 / 0.99, 0.01) == pytest.approx(2 / 3)
    assert population_precision(0.0, 0.0, 0.01) is None
    assert population_f1(0.5, 0.1, 0.0) is None


@given(st.floats(0.01, 1), st.floats(0, 1), st.floats(0.001, 0.999))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(tpr, fpr, density):
    precision = population_precision(tpr, fpr, density)
    assert precision is not None
    assert population_f1(tpr, fpr, density) == pytest.approx(2 * precision * tpr / (precision + tpr))


def test_weights_back_from_a_sample_with_too_many_hard_ones():
    # of 1000 silent windows 20 are hard (the judge always errs), 980 easy (it never does); 10 of each shown
    truths = [True] * 4 + [False] * 20
    says = [1.0] * 4 + [1.0] * 10 + [0.0] * 10
    sizes = [1.0] * 4 + [2.0] * 10 + [98.0] * 10
    precision, recall, f1 = weighted.population(says, truths, sizes, 0.02)
    once = np.ones((1, 24))
    assert recall(once)[0] == 1.0
    assert precision(once)[0] == pytest.approx(population_precision(1.0, 0.02, 0.02))
    assert f1(once)[0] == pytest.approx(population_f1(1.0, 0.02, 0.02))


def test_draws_keep_strata_and_groups_together():
    strata, groups = ["a"] * 4 + ["b"] * 2, [1, 1, 2, 2, 3, 3]
    drawn = draw_weights(strata, groups=groups, n_resamples=200, seed=3)
    assert (drawn[:, :4].sum(axis=1) == 4).all()
    assert (drawn[:, 4:] == 1).all()  # one group alone is always drawn
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert set(drawn[:, 0].tolist()) == {0.0, 1.0, 2.0}
    again = draw_weights(strata, groups=groups, n_resamples=200, seed=3)
    assert (drawn == again).all()


def test_groups_widen_the_interval_of_items_that_are_alike():
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 25)
    groups = np.repeat(np.arange(4), 25).tolist()
    statistic = weighted.mean(values)
    alone = estimate(statistic, draw_weights(["all"] * 100)).interval
    together = estimate(statistic, draw_weights(["all"] * 100, groups=groups)).interval
    assert alone is not None
    assert together is not None
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_the_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for number in range(200):
        sample = rng.random(60) < 0.7
        interval = estimate(
            weighted.mean(sample), draw_weights(["all"] * 60, seed=number, n_resamples=300)
        ).interval
        assert interval is not None
        hits += interval.low <= 0.7 <= interval.high
    assert 178 <= hits <= 200


def test_what_does_not_exist_has_no_interval():
    nothing = estimate(weighted.auroc([1.0, 2.0], [True, True]), draw_weights(["a", "a"], n_resamples=50))
    assert nothing == (None, None)
    assert percentiles(np.array([np.nan, np.nan, 1.0])) is None
    assert mean_interval([1.0]) is None


def test_paired_differences_see_what_unpaired_ones_do_not():
    rng = np.random.default_rng(2)
    hardness = rng.normal(0, 1, 40)
    better = hardness + 0.1 + rng.normal(0, 0.05, 40)
    found = paired_difference(better.tolist(), hardness.tolist(), seed=1)
    assert found.difference == pytest.approx(0.1, abs=0.03)
    assert found.interval is not None
    assert found.interval.low > 0
    assert found.p < 0.001
    with pytest.raises(ValueError, match="2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
