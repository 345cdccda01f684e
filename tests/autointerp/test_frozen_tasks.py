"""The benchmark's frozen material is whole, and its table can be made from its result again."""

from __future__ import annotations

import json

from benchmarks.autointerp.comparing import cost
from benchmarks.autointerp.table import section
from benchmarks.autointerp.tasks import FROZEN, STRATA, of_strata, read_tasks, write_tasks
from benchmarks.report import README, RESULTS

TASKS = read_tasks()


def test_the_frozen_tasks_are_ready_and_divided_by_document():
    ready = [task for task in TASKS if task.status == "ok"]
    assert len(ready) >= 40
    assert len({task.split_hash for task in TASKS}) == len(TASKS)
    for task in ready:
        by_document: dict[int, set[str]] = {}
        for window in task.windows:
            by_document.setdefault(window.document, set()).add(window.split)
        assert all(len(splits) == 1 for splits in by_document.values())
        assert task.of("test", fires=True)
        assert task.of("test", fires=False)


def test_writing_them_again_gives_the_same_file(tmp_path):
    write_tasks(TASKS, tmp_path / "again")
    assert [task.split_hash for task in read_tasks(tmp_path / "again")] == [t.split_hash for t in TASKS]
    assert (tmp_path / "again").read_bytes() == FROZEN.read_bytes()


def test_tokens_are_counted_for_as_many_windows_as_the_peers():
    task = of_strata(TASKS)
    for split, fires, count in STRATA:
        assert len(task.of(split, fires=fires)) == count  # type: ignore[arg-type]
    counted = cost(TASKS[:5])
    assert counted["as_many_windows"]["tokens"] <= counted["peer"] / 2
    assert counted["frozen_tasks"]["tokens"] < counted["as_many_windows"]["tokens"]


def test_the_readme_shows_the_stored_result():
    result = json.loads((RESULTS / "autointerp.json").read_text(encoding="utf-8"))
    assert section(result) in README.read_text(encoding="utf-8")
    rows = {row["method"]: row for row in result["rules"]["tables"]["rule"]}
    # a randomised SAE is at its baseline, real features are above it
    for name in ("token-lookup", "token-classes", "ngrams"):
        assert rows[f"scrambled:{name}"]["ci_high"] < rows[name]["ci_low"]
        assert abs(rows[f"scrambled:{name}"]["mean"] - 0.5) < 0.1
