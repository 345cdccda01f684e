"""Settings, selection, spill files and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from interpedia_ingest.dashboards.errors import BadSelection, BadSettings, BadSpill, NothingCounted
from interpedia_ingest.dashboards.hashing import Purpose, mix, seeded_hash
from interpedia_ingest.dashboards.result import FeatureRow, RowsDigest
from interpedia_ingest.dashboards.selection import Selection, select_contexts, shard_ranges
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.spill import open_spill
from interpedia_ingest.dashboards.summary import DENSITY_EDGES, summarise
from tests.ingest.dashboards_support import file_sha256, make_selection, random_dense, spill_dense

SETTINGS = DashboardSettings(context_length=10)


def test_settings_survive_json() -> None:
    settings = DashboardSettings(ignore_ids=(0, 2), ignore_positions=(5,), norm_multiple=10.0, seed=7)
    again = DashboardSettings.from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings
    assert again.digest() == settings.digest() != DashboardSettings().digest()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"k_top": 0}, "k_top"),
        ({"n_random": -1}, "n_random"),
        ({"norm_multiple": 0.0}, "norm_multiple"),
        ({"norm_multiple": float("nan")}, "norm_multiple"),
        ({"algorithm": 99}, "algorithm"),
        ({"n_bins": 10}, "n_bins"),
        ({"context_length": 1 << 17}, "context_length"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(BadSettings) as caught:
        DashboardSettings.from_json(values)
    assert caught.value.field == field


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.integers(1, 5000), st.integers(0, 4000), st.integers(0, 2**64 - 1))
def test_a_larger_selection_is_a_superset(n_contexts: int, n_tokens: int, more: int, seed: int) -> None:
    few = select_contexts(n_contexts=n_contexts, n_tokens=n_tokens, context_length=10, seed=seed)
    many = select_contexts(n_contexts=n_contexts, n_tokens=n_tokens + more, context_length=10, seed=seed)
    assert len(few) == min(n_contexts, -(-n_tokens // 10))
    assert few.tolist() == sorted(set(few.tolist()))
    assert set(few.tolist()) <= set(many.tolist())


def test_the_selection_is_spread_and_depends_on_the_seed() -> None:
    chosen = select_contexts(n_contexts=10_000, n_tokens=10_000, context_length=10, seed=0)
    assert 400 < (chosen < 5000).sum() < 600
    assert (
        chosen.tolist()
        != select_contexts(n_contexts=10_000, n_tokens=10_000, context_length=10, seed=1).tolist()
    )


def test_the_hash_never_changes() -> None:
    # The first output of splitmix64 for the seed 0 is widely published.
    assert int(mix(np.zeros(1, np.uint64))[0]) == 0xE220A8397B1DCDAF
    state = _plain_mix(1 ^ _plain_mix(2))
    for key in (5, 2**40):
        state = _plain_mix(state ^ key)
    assert seeded_hash(1, Purpose.EXAMPLE, np.array([5]), np.array([2**40])).tolist() == [state]


def _plain_mix(value: int) -> int:
    mask = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_impossible_selections_are_refused() -> None:
    ids = np.zeros((2, 4), np.uint32)
    for contexts, tokens in (([1, 1], ids), ([2, 1], ids), ([1], ids), ([], ids[:0])):
        with pytest.raises(BadSelection):
            Selection(np.array(contexts, np.uint32), tokens)
    with pytest.raises(BadSelection, match="0 contexts"):
        select_contexts(n_contexts=0, n_tokens=1, context_length=4, seed=0)
    with pytest.raises(BadSelection, match="n_tokens"):
        select_contexts(n_contexts=4, n_tokens=0, context_length=4, seed=0)


def test_shards_begin_at_multiples_of_32() -> None:
    assert shard_ranges(100, 33) == [range(64), range(64, 100)]
    assert shard_ranges(64, 1) == [range(32), range(32, 64)]
    assert shard_ranges(5, 1000) == [range(5)]


def _spills(folder: Path, n_rows: int = 70, rows_per_shard: int = 32):
    rng = np.random.default_rng(0)
    selection = make_selection(rng.integers(0, 9, (n_rows, 10)))
    dense = random_dense(rng, n_rows, 10, 6, share=0.2)
    dense[:, :, 2] = 0
    counted = np.ones((n_rows, 10), np.bool_)
    counted[:, 0] = False
    return spill_dense(
        folder, dense, counted, selection, settings=SETTINGS, rows_per_shard=rows_per_shard
    ), dense


def test_a_spill_holds_what_was_written_and_the_same_bytes_twice(tmp_path: Path) -> None:
    one, dense = _spills(tmp_path / "a")
    two, _ = _spills(tmp_path / "b")
    for first, second in zip(one, two, strict=True):
        assert file_sha256(first.path) == file_sha256(second.path)
        first.verify()
        part = dense[first.header.first_row : first.stop_row].copy()
        part[:, 0] = 0
        again = np.zeros(part.shape, np.float32).reshape(-1, 6)
        for feature in range(6):
            run = slice(*first.feature_offsets[feature : feature + 2].tolist())
            assert (np.diff(first.arrays["tokens"][run].astype(np.int64)) > 0).all()
            again[first.arrays["tokens"][run], feature] = first.arrays["values"][run]
        assert np.array_equal(again.reshape(part.shape), part)
        assert not first.counted()[:, 0].any()
        assert first.counted()[:, 1:].all()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_spill_is_refused(tmp_path: Path) -> None:
    (spill, *_), _ = _spills(tmp_path)
    whole = spill.path.read_bytes()
    broken = tmp_path / "broken.spill"
    for content in (b"", b"IPSPILL1", whole[:50], whole[:-64], whole + bytes(64), b"X" + whole[1:]):
        broken.write_bytes(content)
        with pytest.raises(BadSpill):
            open_spill(broken)
    text_at = whole.index(b'"n_rows": 32')
    broken.write_bytes(whole[:text_at] + b'"n_rows": 31' + whole[text_at + 12 :])
    with pytest.raises(BadSpill, match="counted"):
        open_spill(broken)
    flipped = bytearray(whole)
    values_at = whole.index(spill.arrays["values"].tobytes())
    flipped[values_at] ^= 1
    broken.write_bytes(bytes(flipped))
    with pytest.raises(BadSpill, match="digest"):
        open_spill(broken).verify()


def test_the_summary_counts_exactly_in_any_sharding(tmp_path: Path) -> None:
    sharded, dense = _spills(tmp_path / "a")
    whole, _ = _spills(tmp_path / "b", rows_per_shard=1000)
    summary = summarise(sharded)
    assert summary == summarise(whole)
    visible = dense[:, 1:]
    assert (summary.n_contexts, summary.n_tokens, summary.n_masked) == (70, 630, 70)
    assert summary.mean_l0 == (visible != 0).sum() / 630
    assert (summary.n_features, summary.n_dead) == (6, 1)
    densities = (visible != 0).mean(axis=(0, 1))
    expected, _ = np.histogram(np.log10(densities[densities > 0]), np.array(DENSITY_EDGES))
    assert list(summary.density_counts) == expected.tolist()
    assert summary.reconstruction is not None
    assert summary.reconstruction.r_squared == 1  # the identity dictionary reconstructs everything
    assert json.loads(json.dumps(summary.to_json()))["n_dead"] == 1
    with pytest.raises(BadSpill):
        summarise(sharded[1:])


def test_a_summary_of_nothing_is_refused(tmp_path: Path) -> None:
    selection = make_selection(np.zeros((4, 10)))
    dense = np.zeros((4, 10, 3), np.float32)
    spills = spill_dense(tmp_path, dense, np.zeros((4, 10), np.bool_), selection, settings=SETTINGS)
    with pytest.raises(NothingCounted):
        summarise(spills)


def test_the_rows_digest_wants_every_row_once_in_order() -> None:
    def row(idx: int, ids: list[int]) -> FeatureRow:
        return FeatureRow(idx, 0.5, 1, 2.0, 1.0, None, None, ids, [], b"s", b"e")

    one, two = RowsDigest(), RowsDigest()
    one.add(row(0, [1]))
    two.add(row(0, [2]))
    assert one.hexdigest() != two.hexdigest()
    assert one.n_rows == 1
    for idx in (0, 2):
        with pytest.raises(ValueError, match="1 is due"):
            one.add(row(idx, []))
