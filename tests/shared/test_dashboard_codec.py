"""The blobs of a feature: what goes in comes out, and damage is noticed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia_shared.dashboards import (
    Coactive,
    CorruptBlob,
    Examples,
    FeatureStats,
    Histogram,
    Ranked,
    decode_examples,
    decode_stats,
    encode_examples,
    encode_stats,
)

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
"""No single-precision number can be off by less than this."""


def _examples(rows: list[list[float]], first_position: int = 0) -> Examples:
    lengths = [len(row) for row in rows]
    positions = [np.arange(first_position, first_position + n) for n in lengths]
    return Examples(
        contexts=np.arange(len(rows), dtype=np.uint32) * 7,
        reasons=np.arange(len(rows), dtype=np.uint8),
        repeats=np.arange(len(rows)) % 2 == 1,
        offsets=np.cumsum([0, *lengths]).astype(np.uint32),
        positions=np.concatenate([*positions, np.zeros(0)]).astype(np.uint16),
        values=np.array([value for row in rows for value in row], np.float32),
    )


@given(st.lists(st.lists(FINITE, max_size=20), max_size=12), st.sampled_from([0, 100, 1000]))
def test_examples_come_back(rows: list[list[float]], first_position: int) -> None:
    examples = _examples(rows, first_position)
    back = decode_examples(encode_examples(examples))
    for name in ("contexts", "reasons", "repeats", "offsets", "positions"):
        assert np.array_equal(getattr(back, name), getattr(examples, name)), name
    assert np.all(np.abs(back.values - examples.values) <= np.abs(examples.values) * 2.0**-11)


@pytest.mark.parametrize(("smallest", "value_bytes"), [(1e-6, 2), (1e-12, 4)])
def test_small_values_beside_large_ones_stay_what_they_are(smallest: float, value_bytes: int) -> None:
    values = [100.0, 3.7e-4, smallest]
    blob = encode_examples(_examples([values]))
    assert decode_examples(blob).values.tolist() == pytest.approx(values, rel=2**-11)
    assert len(blob) - len(encode_examples(_examples([[]]))) == 3 * (1 + value_bytes)


def test_the_largest_value_is_exact() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 40).astype(np.float32)
    assert decode_examples(encode_examples(_examples([values.tolist()]))).values.max() == values.max()


def _ranked(values: list[float]) -> Ranked:
    return Ranked(np.arange(len(values), dtype=np.uint32), np.array(values, np.float32))


@given(st.lists(FINITE, max_size=20))
def test_ranked_values_are_off_by_half_a_step_at_most(values: list[float]) -> None:
    ranked = _ranked(sorted(values, reverse=True))
    stats = FeatureStats(top_logits=ranked, coactive=Coactive(ranked.ids, ranked.values, ranked.ids))
    back = decode_stats(encode_stats(stats))
    largest = float(np.abs(ranked.values).max(initial=0.0))
    for kept in (back.top_logits.values, back.coactive.pearson):
        errors = np.abs(kept.astype(np.float64) - ranked.values)
        # a step is a 32,767th of the largest; float32 rounds the product once more
        assert np.all(errors <= largest * (0.5 / 32_767 + 2.0**-23) + SMALLEST)
        assert np.all(np.diff(kept) <= 0)
        assert np.abs(kept).max(initial=0.0) == largest
    assert np.array_equal(back.top_logits.ids, ranked.ids)
    assert encode_stats(back) == encode_stats(stats)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_stored(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        encode_stats(FeatureStats(cosine_neighbours=_ranked([0.5, value])))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_counts_are_exact_whatever_their_width(counts: list[int]) -> None:
    stats = FeatureStats(activation_histogram=Histogram(0.25, 1e30, np.array(counts, np.uint32)))
    back = decode_stats(encode_stats(stats)).activation_histogram
    assert (back.counts.tolist(), back.counts.dtype) == (counts, np.uint32)
    assert (back.low, back.high) == (0.25, pytest.approx(1e30, rel=2**-23))


def test_integers_are_as_narrow_as_they_can_be() -> None:
    sizes = [
        len(encode_stats(FeatureStats(interval_counts=np.full(5, largest, np.uint32))))
        for largest in (0, 255, 256, 65_535, 65_536, 2**32 - 1)
    ]
    assert [size - sizes[0] for size in sizes] == [0, 0, 5, 5, 15, 15]


def test_stats_come_back_whole() -> None:
    ranked = _ranked(np.linspace(-1, 1, 10).tolist())
    stats = FeatureStats(
        n_active_tokens=5,
        n_active_contexts=3,
        activation_sum=12.5,
        activation_sum_squares=99.25,
        min_activation=0.5,
        max_activation=8.0,
        interval_counts=np.arange(5, dtype=np.uint32),
        activation_histogram=Histogram(0.5, 8.0, np.arange(50, dtype=np.uint32)),
        logit_histogram=Histogram(-2.0, 3.0, np.arange(50, dtype=np.uint32) * 1000),
        top_logits=ranked,
        bottom_logits=ranked,
        cosine_neighbours=ranked,
        coactive=Coactive(ranked.ids, ranked.values, ranked.ids * 3),
    )
    back = decode_stats(encode_stats(stats))
    assert encode_stats(back) == encode_stats(stats)
    for name in ("n_active_tokens", "n_active_contexts", "activation_sum", "activation_sum_squares"):
        assert getattr(back, name) == getattr(stats, name), name
    assert (back.min_activation, back.max_activation) == (0.5, 8.0)
    assert np.array_equal(back.interval_counts, stats.interval_counts)
    assert np.array_equal(back.logit_histogram.counts, stats.logit_histogram.counts)
    assert back.coactive.counts.tolist() == (ranked.ids * 3).tolist()


def test_only_large_blobs_are_deflated() -> None:
    small, large = _examples([[1.0] * 100] * 2), _examples([[1.0] * 100] * 20)
    plain, deflated = encode_examples(small), encode_examples(large)
    assert (plain[0], deflated[0]) == (0x01, 0x81)
    assert len(deflated) < len(plain)
    assert np.array_equal(decode_examples(deflated).positions, large.positions)


def test_one_changed_bit_is_noticed() -> None:
    blob = encode_examples(_examples([[1.0, 2.0], [3.0]]))
    for bit in range(8 * len(blob)):
        broken = bytearray(blob)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptBlob):
            decode_examples(bytes(broken))


@pytest.mark.parametrize(
    "damage", [b"", b"\x09", lambda b: b[:-3], lambda b: b[:1] + b"not this", lambda b: b"\x81" + b[1:]]
)
def test_damage_is_noticed(damage: bytes | Callable[[bytes], bytes]) -> None:
    for encode, decode, empty in (
        (encode_stats, decode_stats, FeatureStats()),
        (encode_examples, decode_examples, Examples.empty()),
    ):
        blob = encode(empty)  # type: ignore[operator]
        broken = damage(blob) if callable(damage) else damage
        with pytest.raises(CorruptBlob):
            decode(broken)
