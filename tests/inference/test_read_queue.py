"""Which texts share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpedia_engine.hooks import Hook
from interpedia_inference.compute.contract import RawActivations, ReadJob
from interpedia_inference.compute.reads import ReadEntry, ReadQueue

OVERHEAD = 16


class Caller:
    """What a queue looks at of a ticket."""

    def __init__(self, tokens_run: int = 0) -> None:
        self.tokens_run = tokens_run
        self.is_over = False


def entry(length: int, layer: int = 9, *, start: int = 0, caller: Any = None) -> ReadEntry:
    ids = range(start, start + length)
    return ReadEntry(
        ReadJob(ids, [RawActivations(Hook("resid_post", layer))]), caller or Caller(), lambda result: None
    )


def queue(entries: Sequence[ReadEntry]) -> ReadQueue:
    made = ReadQueue(OVERHEAD)
    for one in entries:
        made.add(one)
    return made


def lengths(batch: Sequence[ReadEntry]) -> list[int]:
    return [len(one.ids) for one in batch]


def test_texts_of_like_length_go_together_up_to_the_budget() -> None:
    waiting = queue([entry(64, start=100 * n) for n in range(10)])
    assert lengths(waiting.take(512)) == [64] * 8
    assert lengths(waiting.take(512)) == [64] * 2
    assert waiting.take(512) == []


def test_a_short_text_does_not_pay_for_the_padding_of_a_long_one() -> None:
    waiting = queue([entry(200), entry(10, start=1), entry(12, start=2)])
    assert lengths(waiting.take(512)) == [200]
    assert lengths(waiting.take(512)) == [10, 12]


def test_a_text_for_a_low_layer_does_not_ride_through_all_blocks() -> None:
    waiting = queue([entry(64, layer=29), entry(64, layer=2, start=1), entry(64, layer=27, start=2)])
    assert [one.depth for one in waiting.take(512)] == [30, 28]
    assert [one.depth for one in waiting.take(512)] == [3]


def test_equal_texts_take_one_row_whatever_the_budget() -> None:
    waiting = queue([entry(300) for _ in range(5)])
    assert len(waiting.take(512)) == 5


def test_a_text_over_the_budget_runs_alone() -> None:
    waiting = queue([entry(2_000), entry(64)])
    assert lengths(waiting.take(512)) == [2_000]


def test_who_had_least_comes_first() -> None:
    greedy, modest = Caller(tokens_run=5_000), Caller()
    waiting = queue(
        [*(entry(300, start=n, caller=greedy) for n in range(3)), entry(300, start=9, caller=modest)]
    )
    assert waiting.take(300)[0].ticket is modest


def test_what_is_over_is_dropped() -> None:
    gone = Caller()
    waiting = queue([entry(10, caller=gone), entry(10, start=1)])
    gone.is_over = True
    assert len(waiting.take(512)) == 1
    assert len(waiting) == 0


def test_it_waits_a_moment_for_those_it_served_together_but_not_longer() -> None:
    waiting = queue([entry(10, start=n) for n in range(4)])
    waiting.served(waiting.take(512), now=100.0, seconds=0.1)
    waiting.add(entry(10))
    assert waiting.wait_until() == pytest.approx(100.01)
    for n in range(3):
        waiting.add(entry(10, start=n))
    assert waiting.wait_until() == 0.0


def test_one_caller_is_never_waited_for() -> None:
    waiting = queue([entry(10)])
    waiting.served(waiting.take(512), now=100.0, seconds=10.0)
    waiting.add(entry(10))
    assert waiting.wait_until() == 0.0


@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(0, 29), st.integers(0, 3)), min_size=1, max_size=40),
    st.integers(1, 1024),
)
def test_everything_runs_once_and_together_is_never_dearer(
    texts: list[tuple[int, int, int]], budget: int
) -> None:
    entries = [entry(length, layer, start=start) for length, layer, start in texts]
    waiting = queue(entries)
    seen: list[int] = []
    while batch := waiting.take(budget):
        rows = {one.ids for one in batch}
        longest, depth = max(map(len, rows)), max(one.depth for one in batch)
        together = depth * (OVERHEAD + len(rows) * longest)
        assert together <= sum(one.depth * (OVERHEAD + len(one.ids)) for one in batch)
        assert len(rows) == 1 or len(rows) * longest <= budget
        seen += map(id, batch)
    assert sorted(seen) == sorted(map(id, entries))
