"""Finds out what an endpoint can do, by trying; a model's name says nothing. About nine short calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from interpedia_autointerp.llm.capabilities import Capabilities
from interpedia_autointerp.llm.exchange import CallFailed, Line, Sent
from interpedia_autointerp.llm.reading import strip_reasoning
from interpedia_autointerp.llm.request import JSONFormat, PromptScoreRequest
from interpedia_autointerp.llm.wire import Malformed, read_chat, read_scores, read_usage, schema_format
from interpedia_shared.problems import EndpointFailed

# Reasoning models spend the cap on thoughts before they say the first word.
ANSWER_TOKENS = 512
TOP_LOGPROBS = (20, 5, 1)
PROMPT_TOP = (20, 5, 1)
SCORED_TEXT = "This is a probe: one, two, three, four, five."
# A model that does not know the schema would hardly say this word in this form.
CONTROL = JSONFormat(
    "probe",
    {
        "type": "object",
        "properties": {"animal": {"type": "string", "enum": ["okapi"]}},
        "required": ["animal"],
        "additionalProperties": False,
    },
)


@dataclass
class _Found:
    """Values with how each was found out."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    how: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, name: str, how: str, *, value: Any) -> None:
        self.values[name] = value
        self.how[name] = how


async def probe(line: Line) -> Capabilities:
    """Try everything.

    Raises:
        EndpointFailed: it cannot be reached, refuses key or model, or does not speak this API.
        QuotaExhausted: it wants money, or limits the rate beyond the patience.
    """
    found = _Found()
    await _basics(line, found)
    trials = (_sampling, _json_schema, _json_object, _chat_logprobs, _prompt_logprobs)
    await asyncio.gather(*(trial(line, found) for trial in trials))
    return Capabilities(**found.values, how=dict(sorted(found.how.items())))


def _body(line: Line, found: _Found, question: str, **more: Any) -> dict[str, Any]:
    cap = found.values.get("max_tokens_field", "max_tokens")
    messages = [{"role": "user", "content": f"{question} (This is a probe of the connection.)"}]
    return {"model": line.settings.model, "messages": messages, cap: ANSWER_TOKENS, **more}


async def _chat(line: Line, body: Mapping[str, Any]) -> Sent:
    return await line.send("chat/completions", body, tokens=64)


async def _basics(line: Line, found: _Found) -> None:
    """A plain question: whether there is an answer, what its cap is called, and whether it tells usage."""
    sent: Sent | None = None
    said = ""
    for name in ("max_tokens", "max_completion_tokens"):
        found.note("max_tokens_field", "taken", value=name)
        try:
            sent = await _chat(line, _body(line, found, "Say hello."))
            break
        except CallFailed as error:
            said = error.failure.detail
    if sent is None:
        raise EndpointFailed(line.name, "not_openai", f"a plain question is refused. {said}")
    try:
        reply = read_chat(sent.body)
    except Malformed as error:
        raise EndpointFailed(
            line.name, "not_openai", f"its answer is none of an OpenAI-compatible API: {error}."
        ) from None
    found.values |= {"reported_model": reply.model, "system_fingerprint": reply.fingerprint}
    has_usage = read_usage(sent.body) is not None
    how = "returned" if has_usage else "not in the answer, or without numbers"
    found.note("usage", how, value=has_usage)


async def _sampling(line: Line, found: _Found) -> None:
    """Parameters that reasoning models refuse."""
    for name, value in (("temperature", 0), ("seed", 1)):
        try:
            await _chat(line, _body(line, found, "Say hello.", **{name: value}))
            found.note(name, "accepted", value=True)
        except CallFailed as error:
            found.note(name, error.failure.detail, value=False)


async def _json_schema(line: Line, found: _Found) -> None:
    """A schema that contradicts the question: only where it is enforced does the answer follow it."""
    await _json_mode(line, found, "json_schema", schema_format(CONTROL))


async def _json_object(line: Line, found: _Found) -> None:
    await _json_mode(line, found, "json_object", {"type": "json_object"})


async def _json_mode(line: Line, found: _Found, name: str, form: Mapping[str, Any]) -> None:
    question = "Say hello." if name == "json_schema" else 'Answer in JSON with one key "greeting".'
    try:
        sent = await _chat(line, _body(line, found, question, response_format=form))
        value = json.loads(strip_reasoning(read_chat(sent.body).text))
    except CallFailed as error:
        return found.note(name, error.failure.detail, value=False)
    except (Malformed, ValueError, RecursionError):
        return found.note(name, "accepted and ignored: the answer is no JSON", value=False)
    if name == "json_schema" and value != {"animal": "okapi"}:
        return found.note(name, "accepted and ignored: the answer does not follow the schema", value=False)
    is_object = isinstance(value, dict)
    return found.note(name, "enforced" if is_object else "the answer is no object", value=is_object)


async def _chat_logprobs(line: Line, found: _Found) -> None:
    """The most alternatives that are given with a generated token."""
    how = ""
    for count in TOP_LOGPROBS:
        try:
            sent = await _chat(line, _body(line, found, "Say hello.", logprobs=True, top_logprobs=count))
            tops = [len(token.top) for token in read_chat(sent.body).logprobs]
        except CallFailed as error:
            how = error.failure.detail
            continue
        except Malformed as error:
            return found.note("chat_logprobs", str(error), value=0)
        most = max(tops, default=0)
        how = f"up to {most} alternatives" if most else "accepted and ignored: none in the answer"
        return found.note("chat_logprobs", how, value=most)
    return found.note("chat_logprobs", how, value=0)


async def _prompt_logprobs(line: Line, found: _Found) -> None:
    """`echo` of the old completions, or vLLM's own field; an endpoint may ignore either without an error."""
    said: list[str] = []
    for style in ("echo", "vllm"):
        try:
            how = await _prompt_style(line, found, style)
        except EndpointFailed as error:
            # the chat answers with this key and model: it is this route that is missing
            return found.note("prompt_logprobs", error.detail, value=None)
        if how is None:
            return None
        said.append(f"{style}: {how}")
    return found.note("prompt_logprobs", "; ".join(said), value=None)


async def _prompt_style(line: Line, found: _Found, style: str) -> str | None:
    """None when the endpoint has it (which is noted), else what it did."""
    how = ""
    for count in PROMPT_TOP:
        wish = {"echo": True, "logprobs": count} if style == "echo" else {"prompt_logprobs": count}
        body = {"model": line.settings.model, "prompt": SCORED_TEXT, "max_tokens": 1, **wish}
        try:
            sent = await line.send("completions", body, tokens=32)
            tokens = read_scores(sent.body, PromptScoreRequest(SCORED_TEXT)).prompt_logprobs
        except CallFailed as error:
            how = error.failure.detail
            continue
        except Malformed as error:
            return f"accepted and ignored: {error}"
        found.note("prompt_logprobs", f"{style}: {len(tokens)} tokens scored", value=style)
        found.values["prompt_top"] = max(len(token.top) for token in tokens)
        return None
    return how
