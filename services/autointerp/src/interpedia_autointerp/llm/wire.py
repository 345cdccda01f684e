"""Requests and answers in the dialect of OpenAI-compatible endpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interpedia_autointerp.llm.answer import OutputMode, TokenLogprob, Usage
from interpedia_autointerp.llm.capabilities import Capabilities
from interpedia_autointerp.llm.request import JSONFormat, LLMRequest, PromptScoreRequest, clean

MODES: tuple[OutputMode, ...] = ("json_schema", "json_object", "text")


class Malformed(Exception):
    """An answer with status 200 that is not of the API's form."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer says, in one form for all endpoints; this is what `llm_call.response` keeps."""

    text: str
    refusal: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As Postgres keeps it; tokens are lists to save space."""
        return {
            "text": self.text,
            "refusal": self.refusal,
            "finish_reason": self.finish_reason,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "logprobs": [[t.text, t.logprob, t.top] for t in self.logprobs],
            "prompt_logprobs": [[t.text, t.logprob, t.top] for t in self.prompt_logprobs],
            "left_out": list(self.left_out),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reply:
        """Read what `to_json` wrote."""
        return cls(
            text=value["text"],
            refusal=value["refusal"],
            finish_reason=value["finish_reason"],
            model=value["model"],
            fingerprint=value["fingerprint"],
            logprobs=tuple(TokenLogprob(*token) for token in value["logprobs"]),
            prompt_logprobs=tuple(TokenLogprob(*token) for token in value["prompt_logprobs"]),
            left_out=tuple(value["left_out"]),
        )


def first_mode(request: LLMRequest, capabilities: Capabilities) -> OutputMode:
    """The strictest way to ask for JSON that the endpoint has."""
    if request.output is None:
        return "text"
    if capabilities.json_schema:
        return "json_schema"
    return "json_object" if capabilities.json_object else "text"


def chat_body(
    request: LLMRequest, capabilities: Capabilities, *, model: str, mode: OutputMode
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `chat/completions`, and the sampling parameters that had to be left out of it."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(request, mode),
        capabilities.max_tokens_field: sampling.max_tokens,
    }
    wanted = {
        "temperature": (sampling.temperature, capabilities.temperature),
        "top_p": (sampling.top_p, capabilities.temperature),
        "seed": (sampling.seed, capabilities.seed),
    }
    body |= {name: value for name, (value, is_taken) in wanted.items() if is_taken and value is not None}
    left_out = tuple(n for n, (value, is_taken) in wanted.items() if not is_taken and value is not None)
    if sampling.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": min(sampling.top_logprobs, capabilities.chat_logprobs)}
    if request.output is not None and mode == "json_schema":
        body["response_format"] = schema_format(request.output)
    elif request.output is not None and mode == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body, left_out


def schema_format(output: JSONFormat) -> dict[str, Any]:
    """`response_format` with a schema."""
    schema = {"name": output.name, "strict": True, "schema": output.schema}
    return {"type": "json_schema", "json_schema": schema}


def _messages(request: LLMRequest, mode: OutputMode) -> list[dict[str, str]]:
    """The turns; without a schema of the endpoint's own, the schema stands at the end of the first one."""
    messages = [{"role": m.role, "content": clean(m.content)} for m in request.messages]
    if request.output is None or mode == "json_schema":
        return messages
    schema = json.dumps(request.output.schema, ensure_ascii=False)
    rule = f"Answer with one JSON object and nothing else. It follows this JSON Schema: {schema}"
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{rule}"}, *messages[1:]]
    return [{"role": "system", "content": rule}, *messages]


def score_body(request: PromptScoreRequest, capabilities: Capabilities, *, model: str) -> dict[str, Any]:
    """The body for `completions` that scores the prompt.

    One token is generated: with 0, some servers generate one all the same, and others without end.
    """
    count = max(1, min(request.top_logprobs, capabilities.prompt_top))
    body: dict[str, Any] = {"model": model, "prompt": clean(request.text), "max_tokens": 1}
    if capabilities.temperature:
        body["temperature"] = 0.0
    if capabilities.prompt_logprobs == "vllm":
        return {**body, "prompt_logprobs": count}
    return {**body, "echo": True, "logprobs": count}


def read_chat(body: Any) -> Reply:
    """The answer of `chat/completions`.

    Raises:
        Malformed: it has no choice with a message.
    """
    choice = _choice(body)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise Malformed("its first choice has no message")
    content, refusal = message.get("content"), message.get("refusal")
    if content is not None and not isinstance(content, str):
        raise Malformed("its content is no text")
    logprobs = choice.get("logprobs")
    entries = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    return Reply(
        text=clean(content or ""),
        refusal=clean(refusal) if isinstance(refusal, str) and refusal else None,
        finish_reason=_text(choice.get("finish_reason")),
        model=_text(body.get("model")),
        fingerprint=_text(body.get("system_fingerprint")),
        logprobs=tuple(_chat_token(entry) for entry in entries or ()),
    )


def _choice(body: Any) -> Mapping[str, Any]:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(choices, Sequence) or not choices or not isinstance(choices[0], Mapping):
        raise Malformed("it has no choices")
    return choices[0]


def _chat_token(entry: Any) -> TokenLogprob:
    try:
        top = {
            clean(str(each["token"])): _finite(each["logprob"]) for each in entry.get("top_logprobs") or ()
        }
        return TokenLogprob(clean(str(entry["token"])), _finite(entry["logprob"]), top)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Malformed("its logprobs are not of the usual form") from None


def read_scores(body: Any, request: PromptScoreRequest) -> Reply:
    """The answer of `completions` about the prompt's own tokens.

    Raises:
        Malformed: they are not there: some servers ignore the wish without an error.
    """
    choice = _choice(body)
    try:
        if "prompt_logprobs" in choice:
            tokens = tuple(_vllm_token(entry) for entry in choice["prompt_logprobs"] or ())
        else:
            tokens = _echoed(choice.get("logprobs") or {}, body, request)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        raise Malformed("its prompt logprobs are not of the usual form") from None
    if not tokens or (len(tokens) == 1 and len(request.text) > len(tokens[0].text)):
        raise Malformed("it has no logprobs of the prompt")
    model, fingerprint = _text(body.get("model")), _text(body.get("system_fingerprint"))
    return Reply(text="", finish_reason="stop", model=model, fingerprint=fingerprint, prompt_logprobs=tokens)


def _vllm_token(entry: Any) -> TokenLogprob:
    """VLLM's form: alternatives by token id, the prompt's own token first; null for the first token."""
    if entry is None:
        return TokenLogprob("", None)
    own = next(iter(entry.values()))
    top = {clean(str(each["decoded_token"])): _finite(each["logprob"]) for each in entry.values()}
    return TokenLogprob(clean(str(own["decoded_token"])), _finite(own["logprob"]), top)


def _echoed(logprobs: Mapping[str, Any], body: Mapping[str, Any], request: PromptScoreRequest) -> Any:
    """The old form: parallel lists, the generated token at their end."""
    texts, values = logprobs["tokens"], logprobs["token_logprobs"]
    tops = logprobs.get("top_logprobs") or [None] * len(texts)
    usage = read_usage(body)
    count = len(texts) - (usage.tokens_out if usage is not None else _generated(texts, request.text))
    return tuple(
        TokenLogprob(
            clean(str(text)),
            None if value is None else _finite(value),
            {clean(str(other)): _finite(each) for other, each in (top or {}).items()},
        )
        for text, value, top in list(zip(texts, values, tops, strict=True))[:count]
    )


def _generated(texts: Sequence[str], prompt: str) -> int:
    """Tokens at the end that are not the prompt's, by their lengths: for servers that tell no usage."""
    return 1 if len("".join(map(str, texts))) > len(prompt) else 0


def read_usage(body: Any) -> Usage | None:
    """Tokens as the endpoint counts them; None where it does not, or tells nonsense."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    tokens_in, tokens_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if not tokens_in or tokens_out is None:
        return None
    return Usage(tokens_in=tokens_in, tokens_cached=_count(cached) or 0, tokens_out=tokens_out)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None


def _finite(value: Any) -> float:
    """A logprob that JSON can keep: minus infinity becomes a very small one.

    Raises:
        ValueError: it is not a number.
    """
    number = float(value)
    if math.isnan(number):
        raise ValueError("a logprob is not a number")
    return max(number, -9999.0)


def _text(value: Any) -> str | None:
    return clean(value)[:256] if isinstance(value, str) else None
