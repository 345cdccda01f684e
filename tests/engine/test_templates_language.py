"""The template language: what it takes, what it refuses and where it says the fault is."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpedia_engine.errors import BadTemplate
from interpedia_engine.templates import Template, bundled, bundled_ids, find_template, parse_template
from interpedia_engine.templates.language import Digits, Mention, Place, fill
from interpedia_engine.templates.yaml_text import read_yaml

GOOD: dict[str, Any] = {
    "id": "my-own",
    "text": "When {A} and {B.name} met, {{{A}}} said {B.verb} to",
    "good": [" {A}"],
    "bad": [" {B.name}", {"digits_above": "N"}],
    "lists": {"people": [{"name": "Ann", "verb": "no"}, {"name": "Bob", "verb": "yes"}]},
    "slots": {"A": {"list": "names"}, "B": {"list": "people"}, "N": {"range": [2, 4]}},
    "constraints": ["distinct(A, B.name)", "single_token(A)"],
    "corrupt": {"A#2": "{B.name}"},
    "roles": {"who": "A#1", "both": ["A", "B"], "end": "last"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    template = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    place = template
    for key in parents:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return template


def test_all_of_it():
    template = parse_template(GOOD)
    (variant,) = template.variants
    assert variant.text == (
        *("When ", Mention("A", "", 1), " and ", Mention("B", "name", 1), " met, ", "{", Mention("A", "", 2)),
        *("}", " said ", Mention("B", "verb", 2), " to"),
    )
    assert variant.bad == ((" ", Mention("B", "name", 1)), Digits(True, Mention("N", "", 1)))
    values = {"A": {"": "Tom"}, "B": {"name": "Ann", "verb": "no"}}
    assert fill(variant.text, values) == "When Tom and Ann met, {Tom} said no to"
    assert {slot.name: len(slot.values) for slot in template.slots} == {"A": 35, "B": 2, "N": 3}
    assert [constraint.kind for constraint in template.constraints] == ["distinct", "single_token"]
    assert template.corrupt == ((Place("A", 2), (Mention("B", "name", 1),)),)
    assert [role.places for role in template.roles] == [
        (Place("A", 1),),
        (Place("A", None), Place("B", None)),
        (),
    ]
    assert template.source is None


def test_yaml_scalars_stay_as_they_are_written():
    """`no`, `1732` and `~` are words here, not false, a number and nothing."""
    data = read_yaml('a: [no, 1732, ~, "x\\ny", 2024-01-01]\nb: {c: 1e3}\n')
    assert data == {"a": ["no", "1732", "~", "x\ny", "2024-01-01"], "b": {"c": "1e3"}}


def test_yaml_and_objects_are_the_same():
    text = 'text: "{A} and"\ngood: [" {A}"]\nslots: {A: {values: [no, 12]}}\n'
    from_yaml = parse_template(text)
    from_object = parse_template(
        {"text": "{A} and", "good": [" {A}"], "slots": {"A": {"values": ["no", 12]}}}
    )
    assert from_yaml.source == text
    assert from_yaml.slots == from_object.slots
    assert from_yaml.variants == from_object.variants
    assert from_yaml.id == "own"


@pytest.mark.parametrize(
    ("path", "value", "field", "detail"),
    [
        ("id", "My Own", "template.id", "small letters"),
        ("text", KeyError, "template.text", "missing or empty"),
        ("text", "no {X}", "template.text", "there is no slot 'X'"),
        ("text", "no {A", "template.text", "a brace stands alone at character 3"),
        ("text", "no }", "template.text", "a brace stands alone"),
        ("text", "{A.name}", "template.text", "'A.name' is not there: it is A"),
        ("text", "{B}", "template.text", "it is B.name, B.verb"),
        ("text", "{a}", "template.text", "is no slot"),
        ("text", "{A.__class__}", "template.text", "is no slot"),
        ("text", "{A!r}", "template.text", "is no slot"),
        ("text", "{A:>9999999}", "template.text", "is no slot"),
        ("text", "{0}", "template.text", "is no slot"),
        ("text", "x" * 4001, "template.text", "has 4001 characters, more than 4000"),
        ("text", "a \ud800 b {A}", "template.text", "lone surrogate"),
        ("text", ["a"], "template.text", "a text is needed"),
        ("text", True, "template.text", "a text is needed"),
        ("good", [], "template.good", "at least one answer"),
        ("good", [""], r"template.good\[0\]", "is empty"),
        ("good", " {A}", "template.good", "a list is needed"),
        ("text", "{A}" * 65, "template.text", "mentions slots 65 times, more than 64"),
        ("good", [" x"] * 65, "template.good", "65 entries are more than 64"),
        (
            "bad",
            [{"digits_over": "N"}],
            r"template.bad\[0\]",
            "'digits_over' is not known; is it 'digits_above'",
        ),
        ("bad", [{}], r"template.bad\[0\]", "give one of digits_above"),
        ("slots/A", {"list": "nobody"}, "template.slots.A.list", "there is no list 'nobody'"),
        ("slots/A", {"list": "names", "values": ["x"]}, "template.slots.A", "give one of list"),
        ("slots/A", {}, "template.slots.A", "give one of list"),
        ("slots/A", {"values": []}, "template.slots.A.values", "is empty"),
        ("slots/A", {"values": ["x", {"a": "y"}]}, r"template.slots.A.values\[1\]", "has other fields"),
        ("slots/A", {"values": [{"A": "y"}]}, r"template.slots.A.values\[0\]", "is no field"),
        ("slots/A", {"values": [{1: "y"}]}, r"template.slots.A.values\[0\]", "is no field"),
        ("slots/A", {"values": [None]}, r"template.slots.A.values\[0\]", "a text is needed"),
        ("slots/A", {"values": ["x"] * 2001}, "template.slots.A.values", "2001 entries are more than 2000"),
        ("slots/A", {"range": [5, 2]}, "template.slots.A.range", "is empty"),
        ("slots/A", {"range": [0, 10**5]}, "template.slots.A.range", "more than 2000 numbers"),
        ("slots/A", {"range": ["a", "b"]}, "template.slots.A.range", "two whole numbers"),
        ("slots/lower", {"values": ["x"]}, "template.slots.lower", "capital letters"),
        ("slots", {f"S{i}": {"values": ["x"]} for i in range(33)}, "template.slots", "33 are more than 32"),
        ("constraints", ["eval(A)"], r"template.constraints\[0\]", "write one of distinct"),
        ("constraints", ["distinct(A)"], r"template.constraints\[0\]", "needs two slots"),
        ("constraints", ["distinct(A, Z)"], r"template.constraints\[0\]", "there is no slot 'Z'"),
        ("constraints", ["distinct A, B"], r"template.constraints\[0\]", "write one of"),
        ("corrupt", {"A#3": "x"}, "template.corrupt.A#3", "no text mentions A#3"),
        ("corrupt", {"a": "x"}, "template.corrupt.a", "is no place"),
        ("corrupt", {"A#0": "x"}, "template.corrupt.A#0", "is no place"),
        ("corrupt", {"N": "x"}, "template.corrupt.N", "no text mentions N"),
        ("roles", {"who": "N"}, "template.roles.who", "no text mentions N"),
        ("roles", {"other": "A"}, "template.roles.other", "is not 'other'"),
        ("roles", {"who": []}, "template.roles.who", "names no slot"),
        ("roles", "A", "template.roles", "a mapping is needed"),
        ("roel", {}, "template", "'roel' is not known; is it 'roles'"),
        ("variants", [], "template", "either text, good and bad, or variants"),
    ],
)
def test_refusals_name_the_place(path: str, value: Any, field: str, detail: str):
    with pytest.raises(BadTemplate, match=f"{field}: .*{detail}"):
        parse_template(changed(path, value))


def test_variants():
    one = {"text": "{A} x", "good": [" y"]}
    slots = {"A": {"values": ["a"]}}
    assert len(parse_template({"variants": [one, one], "slots": slots}).variants) == 2
    with pytest.raises(BadTemplate, match=r"template\.variants: is empty"):
        parse_template({"variants": []})
    with pytest.raises(BadTemplate, match=r"template\.variants\[1\]: 'slots' is not known"):
        parse_template({"variants": [one, one | {"slots": {}}], "slots": slots})
    with pytest.raises(BadTemplate, match="either text, good and bad, or variants"):
        parse_template({"slots": slots})


def check(refusal: BadTemplate) -> None:
    assert refusal.field.startswith("template")
    assert refusal.detail


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "detail"),
        [
            ("a: &x [1]\nb: *x", "anchors and aliases"),
            ("!!python/object/apply:os.system ['true']", "tags are not taken"),
            ("a: !!int 3", "tags are not taken"),
            ("a: 1\na: 2", "'a' is there twice"),
            ("[a]: 1", "a key is a word"),
            ("? {a: 1}\n: 2", "a key is a word"),
            ("a: [", "is no YAML"),
            ("a: \x00", "is no YAML"),
            ("\ud800", "is no YAML"),
            ("", "one YAML document is needed, not 0"),
            ("--- a\n--- b", "one YAML document is needed, not 2"),
            ("[" * 100_000, "has 100000 bytes, more than 65536"),
            ("[" * 5000, "nested deeper than 12"),
            ("[" + "1," * 25_000 + "]", "more than 5000 nodes"),
        ],
    )
    def test_refusals(self, text: str, detail: str):
        with pytest.raises(BadTemplate, match=detail):
            parse_template(text)

    def test_a_billion_laughs(self):
        lines = ["a: &a [x, x]"] + [
            f"{c}: &{c} [*{p}, *{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
        ]
        with pytest.raises(BadTemplate, match="anchors and aliases"):
            parse_template("\n".join(lines))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=200))
    def test_any_text_is_a_template_or_a_refusal(self, text: str):
        try:
            assert isinstance(find_template(text), Template)
        except BadTemplate as refusal:
            check(refusal)

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(sorted(GOOD)), json_values)
    def test_any_value_anywhere_is_taken_or_refused(self, key: str, value: Any):
        try:
            assert isinstance(parse_template(changed(key, value)), Template)
        except BadTemplate as refusal:
            check(refusal)


class TestLibrary:
    def test_all_are_sound(self):
        ids = bundled_ids()
        assert len(ids) >= 10
        assert "gendered-pronoun" in ids
        for name in ids:
            template = bundled(name)
            assert template.id == name
            assert template.title
            assert template.description
            assert template.source
            assert template.corrupt, "patching should work on every bundled template"
            assert all(variant.bad for variant in template.variants)

    def test_by_id_or_by_content(self):
        template = bundled("induction")
        assert find_template(" induction ") is template
        assert find_template(template.source or "") == template
        with pytest.raises(BadTemplate, match="template: 'induktion' is not bundled; there are addition"):
            find_template("induktion")

    def test_no_path_leads_out_of_the_library(self):
        for name in ("../language", "lists", "lists.yaml", "/etc/passwd"):
            with pytest.raises(BadTemplate):
                bundled(name)


def test_it_needs_no_torch():
    code = "from interpedia_engine.templates import bundled; bundled('induction'); import sys; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
