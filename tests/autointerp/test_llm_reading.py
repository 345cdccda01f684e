"""Reading answers: what is taken, what is refused; settings that keep their secret; the rule judge itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from interpedia_autointerp.llm import (
    EndpointSettings,
    JSONFormat,
    LLMRequest,
    LLMSettings,
    Message,
    load_llm_settings,
)
from interpedia_autointerp.llm.reading import read_reply, strip_reasoning
from interpedia_autointerp.llm.request import clean
from interpedia_autointerp.llm.schema import UnknownKeyword, check_schema, mismatch
from interpedia_autointerp.llm.wire import Malformed, Reply, read_usage
from tests.support.llm import GOOD, VERDICTS, question, verdicts
from tests.support.rule_judge import RuleJudge, holds, last_json, rule

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def schema_for(value: Any) -> dict[str, Any]:
    """A strict schema that exactly this value's form fits."""
    if isinstance(value, dict):
        properties = {name: schema_for(each) for name, each in value.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(value),
            "additionalProperties": False,
        }
    if isinstance(value, list):
        return {
            "type": "array",
            "items": {"anyOf": [schema_for(v) for v in value] or [{}]},
            "maxItems": len(value),
        }
    if isinstance(value, str):
        return {"type": "string", "enum": [value]}
    return {"const": value}


@given(JSON_VALUES)
def test_a_value_fits_the_schema_made_for_it_and_no_other_form(value: Any) -> None:
    schema = schema_for(value)
    check_schema(schema)
    assert mismatch(value, schema) is None
    assert mismatch([value, value, value, value], schema) is not None
    if isinstance(value, dict):
        assert mismatch({**value, "one more": 1}, schema) is not None
        assert not value or mismatch(dict(list(value.items())[1:]), schema) is not None


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (1000000000000000, {"type": "integer", "maximum": 10}, "maximum 10"),
        (True, {"type": "integer"}, "not of type integer"),
        (1, {"enum": [True, "yes"]}, "not one of"),
        (1.0, {"type": "integer"}, None),
        (1.5, {"type": "integer"}, "not of type integer"),
        ("x" * 201, {"type": "string", "maxLength": 200}, "maxLength"),
        ([], {"type": "array", "minItems": 1}, "minItems"),
        (None, {"type": ["string", "null"]}, None),
        ({"a": [{"b": 1}]}, {"properties": {"a": {"items": {"required": ["c"]}}}}, "#/a/0 has no 'c'"),
    ],
)
def test_bounds_and_places(value: Any, schema: dict[str, Any], words: str | None) -> None:
    found = mismatch(value, schema)
    assert found is None if words is None else words in str(found)


def test_a_schema_that_would_not_be_checked_is_refused_where_it_is_made() -> None:
    with pytest.raises(UnknownKeyword, match="'if'"):
        JSONFormat("x", {"type": "object", "properties": {"a": {"if": {}}}})


@given(st.text(max_size=40), st.text(max_size=40))
def test_json_is_found_among_any_words(before: str, after: str) -> None:
    """Whatever stands around it, the answer is the JSON or a failure, and never anything else."""
    reading = read_reply(verdicts(), Reply(f"{before}\n{GOOD}\n{after}", finish_reason="stop"))
    if reading.failure is None:
        assert reading.data == json.loads(GOOD)
    else:
        assert "{" in before or "<" in before + after


@settings(max_examples=200)
@given(st.integers(0, len(GOOD) - 1))
def test_no_cut_of_an_answer_passes_for_the_whole(length: int) -> None:
    assert read_reply(verdicts(), Reply(GOOD[:length], finish_reason="stop")).failure is not None


def test_complete_json_is_complete_though_the_model_went_on() -> None:
    assert read_reply(verdicts(), Reply(GOOD + " \n" * 50, finish_reason="length")).failure is None
    cut = read_reply(verdicts(), Reply(GOOD[:-2], finish_reason="length")).failure
    assert cut is not None
    assert cut.kind == "length"


def test_thoughts_are_no_part_of_an_answer() -> None:
    assert strip_reasoning('<think>hm {"a": 1}</think>\n yes') == "yes"
    assert strip_reasoning("hm\n</think>yes") == "yes"
    assert strip_reasoning("<think>for ever") == ""
    assert strip_reasoning("a <thinking>b</thinking> c") == "a  c"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        "many",
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": "5", "completion_tokens": 1},
        {"prompt_tokens": 2**40, "completion_tokens": 1},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 5},
    ],
)
def test_usage_that_says_nothing_is_none(usage: Any) -> None:
    assert read_usage({"usage": usage}) is None


def test_usage_without_details_and_with_nonsense_in_them() -> None:
    plain = {"prompt_tokens": 5, "completion_tokens": 0}
    assert read_usage({"usage": plain}) is not None
    odd = read_usage({"usage": {**plain, "prompt_tokens_details": {"cached_tokens": "all"}}})
    assert odd is not None
    assert odd.tokens_cached == 0


@given(st.text(st.characters(blacklist_categories=())))
def test_cleaned_text_can_be_kept_and_plain_text_is_untouched(text: str) -> None:
    kept = clean(text)
    kept.encode()
    assert "\x00" not in kept
    assert clean(kept) == kept
    if "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert kept == text


def test_a_reply_survives_its_row() -> None:
    reply = Reply("t", "r", "stop", "m", "f", left_out=("seed",))
    assert Reply.from_json(json.loads(json.dumps(reply.to_json()))) == reply
    assert issubclass(Malformed, Exception)


def test_settings_by_name_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_llm_settings().endpoints() == {}
    monkeypatch.setenv("INTERPEDIA_LLM__BASE_URL", "")
    assert load_llm_settings().endpoints() == {}, "empty is not set"
    monkeypatch.setenv("INTERPEDIA_LLM__BASE_URL", "http://127.0.0.1:8080/v1/")
    monkeypatch.setenv("INTERPEDIA_LLM__MODEL", "m")
    monkeypatch.setenv("INTERPEDIA_LLM__API_KEY", "sk-secret")
    two = {"judge": {"base_url": "https://llm.example/v1", "model": "j", "price_in": 0.1, "price_out": 0.4}}
    monkeypatch.setenv("INTERPEDIA_LLM_ENDPOINTS", json.dumps(two))
    found = load_llm_settings().endpoints()
    assert list(found) == ["default", "judge"]
    assert found["default"].base_url == "http://127.0.0.1:8080/v1"
    assert found["default"].api_key is not None
    assert found["default"].api_key.get_secret_value() == "sk-secret"
    assert "sk-secret" not in repr(load_llm_settings()) + str(found) + load_llm_settings().model_dump_json()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"base_url": "ftp://x/v1"}, "http"),
        ({"base_url": "http://user:sk-secret@x/v1"}, "api_key"),
        ({"base_url": "http://x/v1?key=sk-secret"}, "query"),
        ({"price_in": 1.0}, "price_out"),
        ({"concurrency": 0}, "concurrency"),
        ({"model": ""}, "model"),
        ({"apikey": "sk-secret"}, "apikey"),
    ],
)
def test_wrong_settings_name_the_field_and_not_the_secret(wrong: dict[str, Any], words: str) -> None:
    right = {"base_url": "http://x/v1", "model": "m", "api_key": "sk-secret"}
    with pytest.raises(ValidationError, match=words) as caught:
        LLMSettings(llm_endpoints={"one": EndpointSettings(**{**right, **wrong})})
    assert "sk-secret" not in str(caught.value)


def test_two_defaults_are_refused() -> None:
    one = EndpointSettings(base_url="http://x/v1", model="m")
    with pytest.raises(ValidationError, match="INTERPEDIA_LLM_ENDPOINTS"):
        LLMSettings(llm=one, llm_endpoints={"default": one})


def judged(judge: RuleJudge, explanation: str, items: list[dict[str, Any]], **more: Any) -> Any:
    data = json.dumps({"explanation": explanation, "windows": items})
    request: LLMRequest = question(**more)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": f"Judge these.\n{data}"}]}
    if request.output is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": request.output.schema}}
    return judge(body)


def test_the_rule_judge_has_the_error_rates_it_was_given() -> None:
    items = [{"id": str(n), "text": f"{'a river' if n % 2 else 'a road'} number {n}"} for n in range(4_000)]
    text = f"Waters {rule(any=['river'])}"
    judge = RuleJudge(false_negative=0.1, false_positive=0.3, seed=5)
    answers = {
        v["id"]: v["fires"] for v in json.loads(judged(judge, text, items, output=VERDICTS))["verdicts"]
    }
    misses = sum(not answers[str(n)] for n in range(1, 4_000, 2)) / 2_000
    alarms = sum(answers[str(n)] for n in range(0, 4_000, 2)) / 2_000
    assert misses == pytest.approx(0.1, abs=0.03)
    assert alarms == pytest.approx(0.3, abs=0.04)
    assert judged(judge, text, items, output=VERDICTS) == judged(judge, text, items, output=VERDICTS)
    exact = json.loads(judged(RuleJudge(), text, items, output=VERDICTS))["verdicts"]
    assert all(v["fires"] == bool(int(v["id"]) % 2) for v in exact)
    one = judged(RuleJudge(), text, items[1:2])
    assert (one.text, max(one.tokens[0][2], key=one.tokens[0][2].get)) == ("Yes", "Yes")


def test_rules_and_marks() -> None:
    assert holds({"all": [{"any": ["lake"]}, {"none": {"any": ["frozen"]}}]}, "The Lake is deep")
    assert not holds({"all": [{"any": ["lake"]}, {"none": {"any": ["frozen"]}}]}, "A frozen lake")
    assert not holds({"any": ["lake"]}, "lakeside")
    assert holds({"regex": r"\d{3}"}, "room 101")
    judge, text = RuleJudge(), rule(any=["river"])
    assert judge.verdict(text, {"id": "1", "text": "a river runs", "marked": [" river"]})
    assert not judge.verdict(text, {"id": "1", "text": "a river runs", "marked": [" runs"]})
    assert not judge.verdict("no rule at all", {"id": "1", "text": "a river runs"})
    assert last_json('x {"a": {"b": 1}} y {"c": 2} z {') == {"c": 2}
    assert Message("user", "x").content == "x"
