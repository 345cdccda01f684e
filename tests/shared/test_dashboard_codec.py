"""The blobs of a feature: what goes in comes out, and damage is noticed."""

from __future__ import annotations

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


def test_small_values_beside_large_ones_stay_what_they_are() -> None:
    values = [100.0, 3.7e-4, 1e-6]
    assert decode_examples(encode_examples(_examples([values]))).values.tolist() == pytest.approx(
        values, rel=2**-11
    )


def test_stats_come_back_whole() -> None:
    ranked = Ranked(np.arange(10, dtype=np.uint32), np.linspace(-1, 1, 10, dtype=np.float32))
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
    blob = encode_stats(stats)
    assert encode_stats(decode_stats(blob)) == blob
    assert decode_stats(blob).coactive.counts.tolist() == (ranked.ids * 3).tolist()


@pytest.mark.parametrize("damage", [b"", b"\x09", lambda b: b[:-3], lambda b: b[:1] + b"not deflated"])
def test_damage_is_noticed(damage: object) -> None:
    for encode, decode, empty in (
        (encode_stats, decode_stats, FeatureStats()),
        (encode_examples, decode_examples, Examples.empty()),
    ):
        blob = encode(empty)  # type: ignore[operator]
        broken = damage(blob) if callable(damage) else damage
        with pytest.raises(CorruptBlob):
            decode(broken)
