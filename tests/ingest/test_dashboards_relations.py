"""Logit lens, decoder neighbours and the ranking below them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from interpedia_ingest.dashboards.errors import NotFinite
from interpedia_ingest.dashboards.lens import lens_rows
from interpedia_ingest.dashboards.neighbours import CosineNeighbours
from interpedia_ingest.dashboards.ranking import top_per_row

quick = hypothesis_settings(max_examples=40, deadline=None)


@quick
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 2000),
    k=st.integers(1, 12),
    levels=st.integers(1, 1000),
    largest=st.booleans(),
)
def test_top_per_row_is_a_sort_by_value_then_column(
    seed: int, width: int, k: int, levels: int, largest: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-levels, levels + 1, (3, width), generator=generator).float()
    scores[scores == 0] *= -1  # negative zeros tie with zeros
    columns, values = top_per_row(scores, k, largest=largest)
    for row in range(3):
        sign = -1 if largest else 1
        expected = sorted(range(width), key=lambda c: (sign * float(scores[row, c]), c))[:k]
        assert columns[row].tolist() == expected
        assert values[row].tolist() == [float(scores[row, c]) for c in expected]


def test_top_per_row_agrees_with_torch_topk() -> None:
    scores = torch.randn(5, 49_152, generator=torch.Generator().manual_seed(0))
    columns, values = top_per_row(scores, 10)
    expected = scores.topk(10, dim=1)
    assert torch.equal(columns, expected.indices)
    assert torch.equal(values, expected.values)
    assert torch.equal(
        top_per_row(scores, 10, largest=False)[0], scores.topk(10, dim=1, largest=False).indices
    )


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 700, 999])
def test_logits_that_are_not_finite_are_refused(bad: float, column: int) -> None:
    effects = torch.randn(2, 1000)
    lens_rows(effects, 10)
    effects[1, column] = bad
    with pytest.raises(NotFinite):
        lens_rows(effects, 10)


def test_lens_histograms_are_torchs_but_for_rounding_at_edges() -> None:
    effects = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    for row, effect in zip(lens_rows(effects, 10), effects, strict=True):
        assert row.histogram.counts.sum() == 5000
        expected = torch.histc(effect, 50).numpy()
        assert np.abs(np.cumsum(row.histogram.counts) - np.cumsum(expected)).max() <= 1
        assert (row.histogram.low, row.histogram.high) == (float(effect.min()), float(effect.max()))
        assert row.top.values.tolist() == sorted(effect.tolist(), reverse=True)[:10]
        assert row.bottom.values.tolist() == sorted(effect.tolist())[:10]


def test_a_direction_without_effect_has_an_empty_lens() -> None:
    (row,) = lens_rows(torch.zeros(1, 300), 10)
    assert len(row.top.ids) == len(row.bottom.ids) == len(row.histogram.counts) == 0


@quick
@given(seed=st.integers(0, 10**6), d_sae=st.integers(1, 200))
def test_neighbours_are_the_highest_positive_cosines(seed: int, d_sae: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(d_sae, 5, generator=generator)
    decoder[d_sae // 2] = 0
    exact = decoder.double().numpy()
    norms = np.linalg.norm(exact, axis=1)
    for feature, found in enumerate(CosineNeighbours(decoder, 4).rows(range(d_sae))):
        cosines = {
            other: exact[feature] @ exact[other] / (norms[feature] * norms[other])
            for other in range(d_sae)
            if other != feature and norms[feature] > 0 and norms[other] > 0
        }
        expected = sorted((c for c in cosines.values() if c > 1e-6), reverse=True)[:4]
        assert found.values.tolist() == pytest.approx(expected, abs=1e-5)
        assert [cosines[int(other)] for other in found.ids] == pytest.approx(found.values.tolist(), abs=1e-5)


def test_equal_decoder_rows_are_neighbours_of_cosine_one_by_index() -> None:
    decoder = torch.ones(5, 3)
    decoder[4] = -1
    first, *_, last = CosineNeighbours(decoder, 10).rows(range(5))
    assert first.ids.tolist() == [1, 2, 3]
    assert first.values.max() <= 1
    assert last.ids.tolist() == []
