"""The writer of the README's figures."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import MissingMarkers, markdown_table, publish, replace_section

README = "# Title\n\n<!-- bench:store -->\nold\n<!-- /bench:store -->\n\nrest\n"


def test_only_the_text_between_the_markers_changes():
    changed = replace_section(README, "store", "\nnew\n\n")
    assert changed == README.replace("old", "new")
    assert replace_section(changed, "store", "new") == changed


@pytest.mark.parametrize(
    "text",
    [
        "no markers at all",
        "<!-- bench:store --> never closed",
        README + README,
        "<!-- /bench:store -->\n<!-- bench:store -->",
        README.replace("store", "dashboards"),
    ],
)
def test_a_document_without_exactly_one_place_is_refused(text: str):
    with pytest.raises(MissingMarkers, match="bench:store"):
        replace_section(text, "store", "new")


def test_table_cells_are_escaped_and_counted():
    assert markdown_table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"
    with pytest.raises(ValueError, match="1 cells, the header 2"):
        markdown_table(["a", "b"], [["1"]])


def test_publish_writes_both_files(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    path = publish("store", {"ratio": 2.5}, "| table |", results=tmp_path / "results", readme=readme)
    assert json.loads(path.read_text()) == {"ratio": 2.5}
    assert readme.read_text() == README.replace("old", "| table |")


def test_numbers_are_kept_when_the_readme_has_no_place(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here")
    with pytest.raises(MissingMarkers):
        publish("store", {"ratio": 2.5}, "| table |", results=tmp_path, readme=readme)
    assert (tmp_path / "store.json").exists()
    assert readme.read_text() == "nothing here"
