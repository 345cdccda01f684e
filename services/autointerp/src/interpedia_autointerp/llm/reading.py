"""From what a model said to data, or to the reason why there is none. Pure: it can be done again later."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from interpedia_autointerp.llm.answer import Failure
from interpedia_autointerp.llm.request import JSONFormat, LLMRequest
from interpedia_autointerp.llm.schema import mismatch
from interpedia_autointerp.llm.wire import Reply

_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPEN_REASONING = re.compile(r"<(think|thinking|reasoning)>", re.IGNORECASE)
# A closing tag without its opening: some chat templates put the opening one into the prompt.
_LATE_REASONING = re.compile(r"^.*?</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
# A brace in prose is followed by neither a quote nor its end.
_OBJECT = re.compile(r"\{\s*[\"}]")
_MAX_TRIES = 64


class Reading(NamedTuple):
    """What one reply comes to."""

    text: str = ""
    data: Any = None
    failure: Failure | None = None
    missing_ids: tuple[str, ...] = ()
    unknown_ids: tuple[str, ...] = ()
    repeated_ids: tuple[str, ...] = ()


class _NoData(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def read_reply(request: LLMRequest, reply: Reply) -> Reading:
    """Read a chat answer as its request wants it."""
    text = strip_reasoning(reply.text)
    failure = _spoilt(request, reply, text)
    if failure is not None:
        return Reading(text, failure=failure)
    if request.output is None:
        return Reading(text)
    try:
        data = find_json(text, request.output.schema)
    except _NoData as error:
        failure = error.failure
        if reply.finish_reason == "length":
            failure = _cut(request)
        return Reading(text, failure=failure)
    return _with_ids(text, data, request.output)


def strip_reasoning(text: str) -> str:
    """The text without a model's thoughts; empty when it never came to an end with them."""
    text = _REASONING.sub("", text)
    text = _LATE_REASONING.sub("", text)
    opened = _OPEN_REASONING.search(text)
    return (text if opened is None else text[: opened.start()]).strip()


def _cut(request: LLMRequest) -> Failure:
    return Failure("length", f"The answer was cut at {request.max_tokens} tokens.")


def _spoilt(request: LLMRequest, reply: Reply, text: str) -> Failure | None:
    """What makes any answer useless, whatever was asked for."""
    if reply.refusal is not None:
        return Failure("refusal", f"The model declined: {reply.refusal[:200]}")
    if reply.finish_reason == "content_filter":
        return Failure("content_filter", "The endpoint withheld the answer.")
    # complete JSON is complete also where the model then went on with white space
    if reply.finish_reason == "length" and request.output is None and not request.allow_cut:
        return _cut(request)
    if not text:
        is_cut = reply.finish_reason == "length"
        return _cut(request) if is_cut else Failure("empty", "The answer is empty.")
    if request.sampling.top_logprobs and not reply.logprobs:
        return Failure("malformed", "The answer has no logprobs, which were asked for.")
    return None


def find_json(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON in a text, which may have words or code fences around it: the first that fits the schema."""
    wrong: str | None = None
    is_open = False
    for value, is_complete in _candidates(text):
        if not is_complete:
            is_open = True
            break
        found = mismatch(value, schema)
        if found is None:
            return value
        wrong = wrong or found
    if wrong is not None:
        raise _NoData(Failure("schema", f"The answer is not of the form asked for: {wrong}."))
    if is_open:
        raise _NoData(Failure("cut_json", "The answer's JSON ends too early or is broken."))
    raise _NoData(Failure("no_json", "The answer holds no JSON."))


def _candidates(text: str) -> Iterator[tuple[Any, bool]]:
    """Every outermost JSON object in order; at the first that is broken, (None, False) and no more.

    What is inside a broken one is not looked at: it would pass for the whole.
    """
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    at = 0
    for _ in range(_MAX_TRIES):
        found = _OBJECT.search(text, at)
        if found is None:
            return
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            yield None, False
            return
        yield value, True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _with_ids(text: str, data: Any, output: JSONFormat) -> Reading:
    """Compare the ids that were answered with those that were asked about."""
    if not output.ids:
        return Reading(text, data)
    by_id: dict[str, list[str]] = defaultdict(list)
    for item in data[output.ids_in]:
        by_id[str(item["id"])].append(json.dumps(item, sort_keys=True))
    missing = tuple(each for each in output.ids if each not in by_id)
    unknown = tuple(each for each in by_id if each not in set(output.ids))
    repeated = tuple(each for each in output.ids if len(set(by_id.get(each, ()))) > 1)
    failure = None
    if len(missing) == len(output.ids):
        failure = Failure("wrong_ids", f"None of the {len(output.ids)} items asked about was answered.")
    return Reading(text, data, failure, missing, unknown, repeated)
