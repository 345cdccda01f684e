"""A small OpenAI-compatible server for tests: scripted replies, chosen capabilities, and faults on demand.

`python -m tests.support.scripted_llm --latency 0.2` runs it as a process of its own, for benchmarks.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.serving import serving

MODEL = "scripted-1"
Body = dict[str, Any]
TOKEN = re.compile(r"\s?\w+|\s|[^\w\s]")


@dataclass
class Reply:
    """What the model says. `tokens`: (text, logprob, alternatives) of what was generated."""

    text: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    tokens: list[tuple[str, float, dict[str, float]]] | None = None


@dataclass
class Fault:
    """One way to misbehave: an answer of its own, or a change of the right one."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay_s: float = 0.0
    change: Callable[[Body], Any] | None = None


def rate_limited(retry_after: str | None = "0", **headers: str) -> Fault:
    """429, as OpenAI words it."""
    error = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
    known = {} if retry_after is None else {"retry-after": retry_after}
    return Fault(429, {**known, **{name.replace("_", "-"): value for name, value in headers.items()}}, error)


def server_error(status: int = 500) -> Fault:
    """The server is broken, in HTML."""
    return Fault(status, body="<html>Internal error</html>")


def quota(status: int = 429) -> Fault:
    """No money left: OpenAI says so with 429, OpenRouter with 402."""
    return Fault(status, body={"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})


def bad_request(message: str, status: int = 400, param: str | None = None) -> Fault:
    """A final refusal."""
    return Fault(status, body={"error": {"message": message, "param": param}})


def slow(seconds: float) -> Fault:
    """The right answer, late."""
    return Fault(delay_s=seconds)


def says(text: str | None, finish_reason: str = "stop", refusal: str | None = None) -> Fault:
    """Another content than the script's."""

    def change(body: Body) -> Body:
        choice = body["choices"][0]
        choice["message"] |= {"content": text, "refusal": refusal}
        choice["finish_reason"] = finish_reason
        return body

    return Fault(change=change)


def refusal() -> Fault:
    """The model declines."""
    return says(None, refusal="I cannot help with that.")


def cut_json() -> Fault:
    """The right content, half of it, as if it were complete."""

    def change(body: Body) -> Body:
        message = body["choices"][0]["message"]
        message["content"] = message["content"][: len(message["content"]) // 2]
        return body

    return Fault(change=change)


def wrong_ids() -> Fault:
    """Every id in the content is another one."""

    def change(body: Body) -> Body:
        message = body["choices"][0]["message"]
        message["content"] = re.sub(r'"id":\s*"', '"id": "other-', message["content"])
        return body

    return Fault(change=change)


def no_usage() -> Fault:
    """No token counts."""
    return Fault(change=lambda body: {name: value for name, value in body.items() if name != "usage"})


def not_openai() -> Fault:
    """200 with something else."""
    return Fault(200, body={"hello": "world"})


@dataclass
class Seen:
    """A request as it arrived; `at` by the monotonic clock."""

    path: str
    headers: dict[str, str]
    body: Body
    at: float


@dataclass
class Script:
    """What the server can do, says, and gets wrong; and what it saw.

    `faults` are used up one per question; `always` stays. `judge` makes the reply, unless `replies` has one
    under the hash of the prompt. `gate`, once set, holds every question until it is opened.
    """

    judge: Callable[[Body], Reply | str] = field(default=lambda body: "Hello.")
    replies: dict[str, str] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    key: str | None = None
    latency_s: float = 0.0
    json_schema: Literal["enforced", "ignored", "refused"] = "enforced"
    json_object: Literal["taken", "refused"] = "taken"
    logprobs: int = 20
    prompt_logprobs: Literal["echo", "vllm", "ignored"] | None = "echo"
    seed: bool = True
    temperature: bool = True
    usage: bool = True
    max_tokens_field: str = "max_tokens"
    prompt_scores: Callable[[str], list[tuple[str, float, dict[str, float]]]] | None = None
    max_concurrency: int | None = None
    is_open: bool = True
    keep_seen: bool = True
    seen: list[Seen] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    refused_busy: int = 0

    @property
    def questions(self) -> list[Seen]:
        """The chat and completion requests, without those of probes."""
        return [each for each in self.seen if "probe" not in json.dumps(each.body)[:400]]

    @property
    def paid(self) -> int:
        """Tokens that a real endpoint would have billed for the questions."""
        return sum(sum(count_tokens(each.body)) for each in self.questions)


def prompt_hash(messages: Sequence[Any]) -> str:
    """The key of `Script.replies`."""
    return hashlib.sha256(json.dumps([m["content"] for m in messages]).encode()).hexdigest()


def count_tokens(body: Body) -> tuple[int, int]:
    """Prompt tokens of a body, and a stand-in for its answer's."""
    messages = body.get("messages") or [{"content": body.get("prompt") or ""}]
    return sum(len(TOKEN.findall(m["content"])) + 4 for m in messages), 0


def scored(text: str) -> list[tuple[str, float, dict[str, float]]]:
    """The tokens of a text with made-up logprobs that depend on all before."""
    found: list[tuple[str, float, dict[str, float]]] = []
    past = hashlib.sha256()
    for token in TOKEN.findall(text):
        past.update(token.encode())
        logprob = -0.01 - past.digest()[0] / 32
        found.append((token, logprob, {token: logprob, "?": -9.0}))
    return found


class ScriptedLLM:
    """The routes."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def app(self) -> Starlette:
        """To be served on a socket."""
        return Starlette(
            routes=[
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def chat(self, request: Request) -> Response:
        return await self._guarded(request, self._chat)

    async def completions(self, request: Request) -> Response:
        return await self._guarded(request, self._complete)

    async def embeddings(self, request: Request) -> Response:
        return await self._guarded(request, self._embed)

    async def _guarded(self, request: Request, handler: Callable[[Body], Any]) -> Response:
        script, body = self.script, await request.json()
        if script.keep_seen:
            script.seen.append(Seen(request.url.path, dict(request.headers), body, time.monotonic()))
        if script.key is not None and request.headers.get("authorization") != f"Bearer {script.key}":
            sent = request.headers.get("authorization", "")
            return _refusal(401, f"Incorrect API key provided: {sent.removeprefix('Bearer ')}")
        if script.max_concurrency is not None and script.in_flight >= script.max_concurrency:
            script.refused_busy += 1
            return _spoilt(rate_limited(None))
        fault = script.faults.popleft() if script.faults else script.always
        script.in_flight += 1
        script.most_in_flight = max(script.most_in_flight, script.in_flight)
        try:
            await asyncio.sleep(script.latency_s + (fault.delay_s if fault else 0.0))
            while not script.is_open:  # noqa: ASYNC110 it is opened from another thread
                await asyncio.sleep(0.01)
            return await self._answer(body, handler, fault)
        finally:
            script.in_flight -= 1

    async def _answer(self, body: Body, handler: Callable[[Body], Any], fault: Fault | None) -> Response:
        if fault is not None and fault.status is not None:
            return _spoilt(fault)
        refused = self._unsupported(body)
        if refused is not None:
            return _refusal(400, refused)
        answer = handler(body)
        if not self.script.usage:
            answer.pop("usage", None)
        if fault is not None and fault.change is not None:
            answer = fault.change(answer)
        return JSONResponse(answer, headers={"x-ratelimit-remaining-requests": "1000"})

    def _unsupported(self, body: Body) -> str | None:
        """What OpenAI's own endpoints say about parameters that a model does not take."""
        script = self.script
        if body.get("model") != MODEL:
            return f"The model '{body.get('model')}' does not exist"
        kind = (body.get("response_format") or {}).get("type")
        other = {"max_tokens", "max_completion_tokens"} - {script.max_tokens_field}
        checks = {
            "Unsupported parameter: 'temperature'": not script.temperature and "temperature" in body,
            "Unsupported parameter: 'seed'": not script.seed and "seed" in body,
            "'response_format' json_schema is not supported": kind == "json_schema"
            and script.json_schema == "refused",
            "'response_format' json_object is not supported": kind == "json_object"
            and script.json_object == "refused",
            f"Unsupported parameter: use '{script.max_tokens_field}' instead": bool(other & body.keys())
            and "messages" in body,
            "echo is not supported": bool(body.get("echo")) and script.prompt_logprobs is None,
        }
        return next((message for message, is_hit in checks.items() if is_hit), None)

    def _chat(self, body: Body) -> Body:
        script = self.script
        kind = (body.get("response_format") or {}).get("type")
        is_ignored = kind == "json_schema" and script.json_schema == "ignored"
        asked = {**body, "response_format": None} if is_ignored else body
        reply = self._reply(asked)
        choice: Body = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text, "refusal": reply.refusal},
            "finish_reason": reply.finish_reason,
        }
        if body.get("logprobs") and script.logprobs:
            choice["logprobs"] = {"content": self._generated(reply, body)}
        tokens_in = count_tokens(body)[0]
        tokens_out = len(TOKEN.findall(reply.text or ""))
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": MODEL,
            "system_fingerprint": "fp_1",
            "choices": [choice],
            "usage": {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        }

    def _reply(self, body: Body) -> Reply:
        probe = _probe_reply(body)
        if probe is not None:
            return Reply(probe)
        text = self.script.replies.get(prompt_hash(body["messages"]))
        found = text if text is not None else self.script.judge(body)
        return Reply(found) if isinstance(found, str) else found

    def _generated(self, reply: Reply, body: Body) -> list[Body]:
        count = min(int(body.get("top_logprobs") or 0), self.script.logprobs)
        tokens = reply.tokens or [
            (token, -0.1, {token: -0.1, "?": -3.0}) for token in TOKEN.findall(reply.text or "")
        ]
        return [
            {
                "token": token,
                "logprob": logprob,
                "top_logprobs": [
                    {"token": other, "logprob": value} for other, value in list(top.items())[:count]
                ],
            }
            for token, logprob, top in tokens
        ]

    def _complete(self, body: Body) -> Body:
        text = body["prompt"]
        tokens = (self.script.prompt_scores or scored)(text)
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1, "total_tokens": len(tokens) + 1}
        choice: Body = {"index": 0, "text": " .", "finish_reason": "length", "logprobs": None}
        if body.get("echo") and self.script.prompt_logprobs == "echo":
            first = [None] + [logprob for _, logprob, _ in tokens[1:]]
            tops = [None] + [top for _, _, top in tokens[1:]]
            choice["text"] = text + " ."
            choice["logprobs"] = {
                "tokens": [token for token, _, _ in tokens] + [" ."],
                "token_logprobs": [*first, -0.5],
                "top_logprobs": [*tops, {" .": -0.5}],
            }
        if body.get("prompt_logprobs") and self.script.prompt_logprobs == "vllm":
            choice["prompt_logprobs"] = [None, *(_vllm_entry(*token) for token in tokens[1:])]
        return {"object": "text_completion", "model": MODEL, "choices": [choice], "usage": usage}

    def _embed(self, body: Body) -> Body:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        size = int(body.get("dimensions") or 384)
        data = [
            {"object": "embedding", "index": i, "embedding": unit(text, size)} for i, text in enumerate(texts)
        ]
        tokens = sum(len(TOKEN.findall(text)) for text in texts)
        return {
            "object": "list",
            "model": MODEL,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def unit(text: str, size: int) -> list[float]:
    """A unit vector that depends on the text only."""
    values: list[float] = []
    for block in range(math.ceil(size / 32)):
        digest = hashlib.sha256(f"{block}:{text}".encode()).digest()
        values += [byte - 127.5 for byte in digest]
    length = math.hypot(*values[:size])
    return [value / length for value in values[:size]]


def _vllm_entry(token: str, logprob: float, top: dict[str, float]) -> Body:
    """vLLM's form: by token id, the chosen token first."""
    entry = {"11": {"logprob": logprob, "rank": 1, "decoded_token": token}}
    others = [(text, value) for text, value in top.items() if text != token]
    for number, (text, value) in enumerate(others):
        entry[str(100 + number)] = {"logprob": value, "rank": number + 2, "decoded_token": text}
    return entry


def _probe_reply(body: Body) -> str | None:
    """A model that follows a grammar when there is one, and says hello otherwise."""
    if "probe" not in json.dumps(body["messages"]):
        return None
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_schema":
        properties = asked["json_schema"]["schema"]["properties"]
        return json.dumps({name: each.get("enum", ["x"])[0] for name, each in properties.items()})
    return '{"greeting": "hello"}' if asked.get("type") == "json_object" else "Hello."


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status)


def _spoilt(fault: Fault) -> Response:
    if isinstance(fault.body, str):
        return Response(fault.body, fault.status or 500, fault.headers, media_type="text/html")
    return JSONResponse(fault.body, fault.status or 500, fault.headers)


@contextmanager
def scripted(script: Script) -> Iterator[str]:
    """Serve the script on a socket of its own; gives the base URL, with /v1."""
    with serving(ScriptedLLM(script).app()) as address:
        yield f"{address}/v1"


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.scripted_llm")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--error", type=float, default=0.0, help="error rate of the rule judge")
    options = parser.parse_args()
    from tests.support.rule_judge import RuleJudge

    judge = RuleJudge(false_negative=options.error, false_positive=options.error)
    script = Script(judge=judge, latency_s=options.latency, keep_seen=False)
    uvicorn.run(ScriptedLLM(script).app(), port=options.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
