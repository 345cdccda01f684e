"""Reduction against plain loops, numpy and scipy, and its independence of sharding and ranges."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from interpedia_ingest.dashboards.errors import BadSelection, BadSpill, BuildCancelled, NothingCounted
from interpedia_ingest.dashboards.histograms import linear_histograms
from interpedia_ingest.dashboards.reduce import BLOCK, Reducer
from interpedia_ingest.dashboards.result import FeatureResult
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.units import intervals
from interpedia_ingest.dashboards.watch import Watch
from tests.ingest.dashboards_support import (
    described_examples,
    digest,
    interval_of,
    make_selection,
    random_dense,
    reduce_all,
    reference_examples,
    spill_dense,
)

LENGTH = 12
SETTINGS = DashboardSettings(
    context_length=LENGTH, k_top=4, per_interval=2, n_random=3, repeat_window=2, n_ranked=4
)
quick = hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _case(
    seed: int, n_rows: int, d_sae: int, *, share: float = 0.1, signed: bool = False, vocabulary: int = 9
):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocabulary, (n_rows, LENGTH))
    tokens[:, 0] = 1
    for copy in range(0, n_rows - 1, 5):  # repeated contexts
        tokens[copy + 1] = tokens[copy]
    dense = random_dense(rng, n_rows, LENGTH, d_sae, share=share, signed=signed)
    if d_sae > 2:
        dense[:, :, 1] = 0  # dead
        dense[:, 1:, 2] = np.float32(0.7)  # constant
    counted = np.ones((n_rows, LENGTH), np.bool_)
    counted[:, 0] = False
    counted[rng.random(counted.shape) < 0.05] = False
    counted[n_rows // 2] = False
    return make_selection(tokens), dense, counted


def _reduce(folder: Path, case, settings: DashboardSettings = SETTINGS, **more) -> list[FeatureResult]:
    selection, dense, counted = case
    spills = spill_dense(folder, dense, counted, selection, settings=settings)
    return reduce_all(Reducer(spills, selection, settings=settings, **more))


@quick
@given(seed=st.integers(0, 10**6), n_rows=st.integers(2, 70), signed=st.booleans())
def test_everything_agrees_with_plain_loops(tmp_path: Path, seed: int, n_rows: int, signed: bool) -> None:
    case = _case(seed, n_rows, 6, share=0.15, signed=signed)
    selection, dense, counted = case
    if not counted.any():
        return
    results = _reduce(tmp_path, case)
    visible = np.where(counted[:, :, None], dense, 0)
    for feature, result in enumerate(results):
        values = visible[:, :, feature]
        fired = [float(v) for v in values.reshape(-1) if v != 0]
        stats = result.stats
        assert result.index == feature
        assert stats.n_active_tokens == len(fired)
        assert result.density == len(fired) / int(counted.sum())
        assert stats.n_active_contexts == sum(bool(row.any()) for row in values)
        assert stats.activation_sum == _in_order(fired)
        assert stats.activation_sum_squares == _in_order([v * v for v in fired])
        assert (stats.min_activation, stats.max_activation) == (min(fired, default=0), max(fired, default=0))
        assert described_examples(result) == reference_examples(values, counted, selection, feature, SETTINGS)
        peaks = [float(np.abs(row).max()) for row in values if row.any()]
        per_interval = [0] * 5
        for peak in peaks:
            per_interval[interval_of(peak, max(peaks)) - 1] += 1
        assert stats.interval_counts.tolist() == per_interval
        if fired and min(fired) < max(fired):
            expected, _ = np.histogram(np.array(fired), 50, (min(fired), max(fired)))
            assert stats.activation_histogram.counts.tolist() == expected.tolist()


def _in_order(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


@quick
@given(seed=st.integers(0, 10**6), signed=st.booleans())
def test_coactivation_is_pearsons_r(tmp_path: Path, seed: int, signed: bool) -> None:
    case = _case(seed, 40, 7, share=0.3, signed=signed)
    _, dense, counted = case
    columns = dense[counted].astype(np.float64)
    for result in _reduce(tmp_path, case):
        found = result.stats.coactive
        expected: list[tuple[float, int, int]] = []
        for other in range(7):
            both = int(((columns[:, result.index] != 0) & (columns[:, other] != 0)).sum())
            spreads = np.ptp(columns[:, result.index]), np.ptp(columns[:, other])
            if other == result.index or both < 3 or min(spreads) == 0:
                continue
            r = float(np.corrcoef(columns[:, result.index], columns[:, other])[0, 1])
            assert r == pytest.approx(
                scipy.stats.pearsonr(columns[:, result.index], columns[:, other]).statistic, abs=1e-9
            )
            if r > 1e-6:
                expected.append((r, other, both))
        expected.sort(reverse=True)
        clear = [
            entry for entry in zip(found.ids, found.pearson, found.counts, strict=True) if entry[1] > 1e-6
        ]
        assert [float(r) for _, r, _ in clear] == pytest.approx([r for r, _, _ in expected[:4]], abs=1e-6)
        by_id = {other: (r, both) for r, other, both in expected}
        for other, r, both in clear:
            assert by_id[int(other)][1] == int(both)
            assert by_id[int(other)][0] == pytest.approx(float(r), abs=1e-6)


def test_sparse_and_dense_coactivation_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interpedia_ingest.dashboards import coactivation

    case = _case(3, 64, 40, share=0.2)
    monkeypatch.setattr(coactivation, "_DENSE_ABOVE", 2.0)
    sparse = _reduce(tmp_path, case)
    monkeypatch.setattr(coactivation, "_DENSE_ABOVE", 0.0)
    monkeypatch.setattr(coactivation, "_DENSE_TOKENS", 100)
    dense = _reduce(tmp_path, case)
    assert sum(len(result.stats.coactive.ids) for result in sparse) > 50
    for one, other in zip(sparse, dense, strict=True):
        assert one.stats.coactive.pearson == pytest.approx(other.stats.coactive.pearson, abs=1e-6)
        assert sorted(one.stats.coactive.counts.tolist()) == sorted(other.stats.coactive.counts.tolist())


def test_coactivation_on_a_sample_of_tokens(tmp_path: Path) -> None:
    case = _case(5, 64, 8, share=0.5)
    fewer = DashboardSettings(**{**SETTINGS.to_json(), "coactive_tokens": 300})  # type: ignore[arg-type]
    all_of = _reduce(tmp_path / "all", case)
    some = _reduce(tmp_path / "some", case, fewer)
    assert digest(all_of) != digest(some)
    for one, other in zip(all_of, some, strict=True):
        assert one.stats.n_active_tokens == other.stats.n_active_tokens
        assert (other.stats.coactive.counts <= 300).all()
        assert described_examples(one) == described_examples(other)


def test_any_sharding_and_any_ranges_give_the_same_bytes(tmp_path: Path) -> None:
    selection, dense, counted = _case(11, 160, 2 * BLOCK + 44, share=0.05)
    generator = torch.Generator().manual_seed(1)
    decoder = torch.randn(dense.shape[2], 24, generator=generator)
    unembedding = torch.randn(24, 700, generator=generator)
    digests: set[str] = set()
    splits = [
        [range(300)],
        [range(128), range(128, 300)],
        [range(7), range(7, 131), range(131, 132), range(132, 300)],
    ]
    for rows_per_shard in (160, 96, 32):  # 1, 2 and 5 shards
        spills = spill_dense(
            tmp_path, dense, counted, selection, settings=SETTINGS, rows_per_shard=rows_per_shard
        )
        assert len(spills) == math.ceil(160 / rows_per_shard)
        for ranges in splits:
            reducer = Reducer(
                spills,
                selection,
                settings=SETTINGS,
                decoder=decoder,
                logit_effects=lambda part: decoder[part.start : part.stop] @ unembedding,
            )
            digests.add(digest(reduce_all(reducer, ranges)))
    assert len(digests) == 1
    other_seed = DashboardSettings(**{**SETTINGS.to_json(), "seed": 1})  # type: ignore[arg-type]
    assert digest(_reduce(tmp_path / "seed", (selection, dense, counted), other_seed)) not in digests


def test_pieces_of_a_block_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interpedia_ingest.dashboards import reduce

    case = _case(2, 64, 30, share=0.3)
    whole = digest(_reduce(tmp_path, case))
    monkeypatch.setattr(reduce, "_PIECE_NONZEROS", 50)
    assert digest(_reduce(tmp_path, case)) == whole


def test_dead_features_are_kept_as_dead(tmp_path: Path) -> None:
    case = _case(1, 40, 5)
    dead = _reduce(tmp_path, case)[1]
    assert (dead.density, dead.max_activation, dead.mean_activation) == (0, 0, 0)
    assert (dead.peak_context, dead.peak_position, dead.peak_token_ids) == (None, None, ())
    assert len(dead.stats.activation_histogram.counts) == 0
    assert dead.stats.interval_counts.tolist() == [0] * 5
    assert dead.examples.reasons.tolist() == [255] * 3
    assert len(dead.examples.values) == 0


def test_all_features_dead(tmp_path: Path) -> None:
    selection, dense, counted = _case(1, 40, 3)
    results = _reduce(tmp_path, (selection, np.zeros_like(dense), counted))
    assert all(result.stats.n_active_tokens == 0 and len(result.examples) == 3 for result in results)


def test_masked_positions_are_not_seen(tmp_path: Path) -> None:
    selection, dense, counted = _case(1, 40, 5)
    dense[:, 0, 3] = 1000
    masked = _reduce(tmp_path / "masked", (selection, dense, counted))
    everything = _reduce(tmp_path / "all", (selection, dense, np.ones_like(counted)))
    assert masked[3].max_activation < 1000
    assert everything[3].max_activation == 1000  # the control: without the mask BOS is the top example
    assert everything[3].density > masked[3].density
    assert all((result.examples.positions > 0).all() for result in masked)


def test_negative_activations_rank_by_magnitude_and_keep_their_sign(tmp_path: Path) -> None:
    tokens = np.arange(3 * LENGTH).reshape(3, LENGTH)
    dense = np.zeros((3, LENGTH, 1), np.float32)
    dense[0, 4], dense[1, 5], dense[2, [6, 7], 0] = 2.0, -8.0, [1.0, -3.0]
    counted = np.ones((3, LENGTH), np.bool_)
    (result,) = _reduce(tmp_path, (make_selection(tokens), dense, counted))
    assert (result.stats.min_activation, result.stats.max_activation) == (-8, 2)
    assert result.max_activation == 8
    assert result.mean_activation == -2
    assert result.examples.contexts.tolist() == [4, 7, 1]
    assert result.examples.values.tolist() == [-8, 1, -3, 2]
    assert (result.peak_context, result.peak_position) == (4, 5)
    assert result.peak_token_ids == (LENGTH + 5, 2 * LENGTH + 7, 4)
    assert result.stats.interval_counts.tolist() == [0, 2, 0, 0, 1]


def test_equal_contexts_are_kept_once_and_equal_windows_are_marked(tmp_path: Path) -> None:
    tokens = np.array([[1, *range(100 * row, 100 * row + LENGTH - 1)] for row in range(4)])
    tokens[2] = tokens[0]
    tokens[3, 4:9] = tokens[1, 4:9]
    dense = np.zeros((4, LENGTH, 1), np.float32)
    dense[:, 6, 0] = [5, 4, 6, 3]
    (result,) = _reduce(tmp_path, (make_selection(tokens), dense, np.ones((4, LENGTH), np.bool_)))
    assert result.stats.n_active_contexts == 4
    assert result.examples.contexts.tolist() == [7, 4, 10]  # row 0 has the ids of row 2, which is higher
    assert result.examples.repeats.tolist() == [False, False, True]


@pytest.mark.parametrize("value", [0.7, -3.25])
def test_one_value_only_fills_the_last_bin(tmp_path: Path, value: float) -> None:
    dense = np.full((2, LENGTH, 1), value, np.float32)
    tokens = np.arange(2 * LENGTH).reshape(2, LENGTH)
    (result,) = _reduce(tmp_path, (make_selection(tokens), dense, np.ones((2, LENGTH), np.bool_)))
    histogram = result.stats.activation_histogram
    assert histogram.low == histogram.high == np.float32(value)
    assert histogram.counts.tolist() == [0] * 49 + [2 * LENGTH]
    assert result.stats.interval_counts.tolist() == [0, 0, 0, 0, 2]
    assert len(result.examples) == 2


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False).filter(lambda v: v != 0),
        min_size=2,
        max_size=60,
    ),
    st.integers(1, 60),
)
def test_histograms_are_numpys_in_double_precision(values: list[float], grid: int) -> None:
    on_edges = [float(np.float32(step)) for step in range(1, grid + 1)]
    for case in (values, on_edges):
        array = np.array(case, np.float32)
        low, high = array.min(keepdims=True), array.max(keepdims=True)
        if low == high:
            continue
        counts = linear_histograms(array, np.zeros(len(array), np.int64), low=low, high=high)[0]
        expected, _ = np.histogram(array.astype(np.float64), 50, (float(low[0]), float(high[0])))
        assert counts.tolist() == expected.tolist()


def test_histograms_are_torchs_but_for_rounding_at_edges() -> None:
    values = np.random.default_rng(0).exponential(1, 20_000).astype(np.float32)
    low, high = values.min(keepdims=True), values.max(keepdims=True)
    counts = linear_histograms(values, np.zeros(len(values), np.int64), low=low, high=high)[0]
    expected = torch.histc(torch.from_numpy(values), 50).numpy()
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 2


def test_intervals_are_exact_at_their_edges() -> None:
    rng = np.random.default_rng(0)
    largest = rng.exponential(10, 3000).astype(np.float32)
    near = (largest.astype(np.float64) * rng.integers(1, 6, 3000) / 5).astype(np.float32)
    steps = np.nextafter(near, np.float32(np.inf) * rng.choice([-1, 1], 3000).astype(np.float32))
    for peaks in (near, np.minimum(steps, largest), largest):
        found = intervals(peaks, largest)
        expected = [interval_of(float(p), float(m)) for p, m in zip(peaks, largest, strict=True)]
        assert found.tolist() == expected
    assert intervals(np.array([1, 2, 3, 4, 5], np.float32), np.full(5, 5, np.float32)).tolist() == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_a_dense_dictionary_of_both_signs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, (40, LENGTH))
    dense = rng.standard_normal((40, LENGTH, 24)).astype(np.float32)
    counted = np.ones((40, LENGTH), np.bool_)
    results = _reduce(tmp_path, (make_selection(tokens), dense, counted))
    matrix = np.corrcoef(dense.reshape(-1, 24).astype(np.float64), rowvar=False) - 2 * np.eye(24)
    for result in results:
        assert result.density == 1
        assert 255 not in result.examples.reasons
        coactive = result.stats.coactive
        assert coactive.ids.tolist() == np.argsort(-matrix[result.index])[:4].tolist()
        assert coactive.pearson == pytest.approx(matrix[result.index][coactive.ids], abs=1e-6)
        assert coactive.counts.tolist() == [40 * LENGTH] * 4


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    selection, dense, counted = _case(0, 64, 4)
    spills = spill_dense(tmp_path, dense, counted, selection, settings=SETTINGS, rows_per_shard=32)
    other = DashboardSettings(context_length=LENGTH)
    with pytest.raises(BadSpill, match="settings"):
        Reducer(spills, selection, settings=other)
    with pytest.raises(BadSpill, match="begins at row 32"):
        Reducer(spills[1:], selection, settings=SETTINGS)
    with pytest.raises(BadSpill, match="none is given"):
        Reducer([], selection, settings=SETTINGS)
    with pytest.raises(BadSelection, match="64 contexts"):
        Reducer(spills, make_selection(selection.tokens[:32]), settings=SETTINGS)
    with pytest.raises(BadSelection, match="hold 32 contexts"):
        Reducer(spills[:1], selection, settings=SETTINGS)
    with pytest.raises(BadSelection, match="other contexts"):
        Reducer(spills, make_selection(selection.tokens[::-1]), settings=SETTINGS)
    reducer = Reducer(spills, selection, settings=SETTINGS)
    for features in (range(-1, 2), range(5), range(2, 2), range(0, 4, 2)):
        with pytest.raises(BadSelection, match="features"):
            list(reducer.reduce(features))
    with pytest.raises(BuildCancelled):
        list(reducer.reduce(range(4), Watch(should_cancel=lambda: True)))


def test_a_corpus_in_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    selection, dense, counted = _case(0, 32, 4)
    spills = spill_dense(tmp_path, dense, np.zeros_like(counted), selection, settings=SETTINGS)
    with pytest.raises(NothingCounted):
        Reducer(spills, selection, settings=SETTINGS)
