"""A judge that follows the rule inside an explanation, and errs as often as it is told to.

The question is the last JSON object of the last user message: an `explanation` that holds `[[rule: {…}]]`,
and one list of `{"id", "text", "marked"?}`. The answer fills the JSON schema of the request, or is Yes or No.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.scripted_llm import Body, Reply

RULE = re.compile(r"\[\[rule:\s*(\{.*?\})\s*\]\]", re.DOTALL)
YES, NO = {"yes", "true", "match", "fires", "positive", "1"}, {"no", "false", "silent", "negative", "0"}


def rule(**parts: Any) -> str:
    """A rule as it stands in an explanation: `rule(any=["river", "lake"])`."""
    return f"[[rule: {json.dumps(parts)}]]"


def holds(parts: dict[str, Any], text: str) -> bool:
    """Whether every part of the rule holds for the text. Words are matched whole, without regard to case."""
    checks: dict[str, Callable[[Any], bool]] = {
        "always": bool,
        "any": lambda words: any(_has_word(text, word) for word in words),
        "regex": lambda pattern: re.search(pattern, text) is not None,
        "all": lambda rules: all(holds(each, text) for each in rules),
        "none": lambda other: not holds(other, text),
    }
    return all(checks[name](value) for name, value in parts.items())


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def last_json(text: str) -> Any:
    """The last complete JSON object in a text that is not inside another one."""
    decoder, found, at = json.JSONDecoder(), None, text.find("{")
    while at != -1:
        try:
            found, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        at = text.find("{", end)
    return found


@dataclass(frozen=True)
class RuleJudge:
    """Answers by the rule; the errors depend on seed, explanation and text alone, so repeats agree."""

    false_negative: float = 0.0
    false_positive: float = 0.0
    seed: int = 0

    def __call__(self, body: Body) -> Reply | str:
        question = last_json(body["messages"][-1]["content"]) or {}
        explanation = str(question.get("explanation", ""))
        items = next((value for value in question.values() if _is_items(value)), [])
        verdicts = {item["id"]: self.verdict(explanation, item) for item in items}
        schema = schema_of(body)
        if schema is not None:
            return json.dumps(fill(schema, verdicts))
        answer = next(iter(verdicts.values()), False)
        return Reply("Yes" if answer else "No", tokens=[self._spread(answer)])

    def verdict(self, explanation: str, item: dict[str, Any]) -> bool:
        """What the judge says of one item."""
        found = RULE.search(explanation)
        parts = json.loads(found.group(1)) if found else {"always": False}
        texts = [item["text"]] if "marked" not in item else item["marked"]
        truth = any(holds(parts, text) for text in texts)
        key = json.dumps([self.seed, explanation, item["text"], item.get("marked")])
        draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        return truth != (draw < (self.false_negative if truth else self.false_positive))

    def _spread(self, answer: bool) -> tuple[str, float, dict[str, float]]:
        sure, unsure = math.log(0.9), math.log(0.08)
        word, other = ("Yes", "No") if answer else ("No", "Yes")
        return word, sure, {word: sure, other: unsure, "Maybe": math.log(0.02)}


def _is_items(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "id" in v for v in value)


def schema_of(body: Body) -> dict[str, Any] | None:
    """The schema asked for: by `response_format`, or as the last JSON of a message that speaks of one."""
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_schema":
        return asked["json_schema"]["schema"]
    for message in body["messages"]:
        at = message["content"].find("JSON Schema:")
        if at != -1:
            start = message["content"].find("{", at)
            return json.JSONDecoder().raw_decode(message["content"], start)[0]
    return None


def fill(schema: dict[str, Any], verdicts: dict[str, bool]) -> Any:
    """A value of the schema: lists of objects with `id` become the verdicts, all else the first that fits."""
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object":
        return {name: fill(each, verdicts) for name, each in schema["properties"].items()}
    if kind == "array":
        items = schema["items"]
        if "id" in items.get("properties", {}):
            return [_filled(items["properties"], name, value) for name, value in verdicts.items()]
        return [fill(items, verdicts) for _ in range(schema.get("minItems", 0))]
    return {"boolean": False, "number": 0.0, "integer": schema.get("minimum", 0)}.get(str(kind), "x")


def _filled(properties: dict[str, Any], name: str, verdict: bool) -> dict[str, Any]:
    return {key: name if key == "id" else _word(each, verdict) for key, each in properties.items()}


def _word(schema: dict[str, Any], verdict: bool) -> Any:
    wanted = YES if verdict else NO
    if "enum" in schema:
        return next((each for each in schema["enum"] if str(each).lower() in wanted), schema["enum"][0])
    if schema.get("type") == "boolean":
        return verdict
    if schema.get("type") in {"number", "integer"}:
        return (0.9 if verdict else 0.1) if schema["type"] == "number" else int(verdict)
    return "because of the rule"
