"""Runs texts through the live model over HTTP, through the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import structlog

from interpedia_autointerp.material.backend import Trace
from interpedia_autointerp.settings import AutointerpSettings
from interpedia_shared.contracts.live.activations import ActivationsOnText
from interpedia_shared.contracts.live.requests import MAX_TEXTS
from interpedia_shared.ids import FeatureRef
from interpedia_shared.problems import Invalid, NotFound, Problem, Unavailable

log = structlog.get_logger(__name__)

_AGAIN = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
_CHARACTERS_PER_TOKEN = 3


class LiveBackend:
    """Activations and steering of one deployment. Implements `ActivationBackend` and `Steerer`.

    A host that is busy or away is waited for, up to the patience of the settings.
    """

    def __init__(self, settings: AutointerpSettings) -> None:
        key = settings.gateway_key
        headers = {} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"}
        self._client = httpx.AsyncClient(
            base_url=settings.gateway_url,
            headers=headers,
            timeout=httpx.Timeout(settings.live_timeout_s, connect=5.0),
            trust_env=False,
        )
        self._patience_s = settings.live_patience_s
        self._batch_tokens = settings.live_batch_tokens
        self._slots = asyncio.Semaphore(settings.live_concurrency)

    async def on_tokens(self, feature: FeatureRef, rows: Sequence[Sequence[int]]) -> list[Trace]:
        """One trace for each row of token ids.

        Raises:
            Problem: what the live service refused, or that it cannot be reached.
        """
        return await self._traces(feature, "token_ids", [list(row) for row in rows], [len(r) for r in rows])

    async def on_texts(self, feature: FeatureRef, texts: Sequence[str]) -> list[Trace]:
        """One trace for each text, a BOS before it where the model has one.

        Raises:
            Problem: what the live service refused, or that it cannot be reached.
        """
        sizes = [len(text) // _CHARACTERS_PER_TOKEN + 1 for text in texts]
        return await self._traces(feature, "texts", list(texts), sizes)

    async def steer(
        self,
        feature: FeatureRef,
        prompts: Sequence[str],
        strengths: Sequence[float],
        *,
        max_new_tokens: int,
        seed: int,
    ) -> list[str]:
        """Continuation i of prompts[i] with strengths[i] times the feature's maximum added.

        Raises:
            Problem: what the live service refused, or that it cannot be reached.
        """

        async def one(prompt: str, strength: float) -> str:
            name = "default" if strength == 0 else "steered"
            change = {"sae": feature.sae, "feature": feature.index, "method": "add", "strength": strength}
            body = {
                "model": feature.model,
                "prompt": prompt,
                "interventions": [change],
                "outputs": [name],
                "max_new_tokens": max_new_tokens,
                "seed": seed,
            }
            return str((await self._post("/v1/steer", body))[name]["text"])

        return list(await asyncio.gather(*map(one, prompts, strengths)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _traces(
        self, feature: FeatureRef, field: str, rows: Sequence[Any], sizes: Sequence[int]
    ) -> list[Trace]:
        async def one(part: slice) -> list[Trace]:
            body = {
                "model": feature.model,
                field: rows[part],
                "features": [{"sae": feature.sae, "feature": feature.index}],
            }
            answer = await self._post("/v1/activations", body)
            return [_trace(ActivationsOnText.model_validate(each)) for each in answer["results"]]

        parts = await asyncio.gather(*map(one, _parts(sizes, self._batch_tokens)))
        return [trace for part in parts for trace in part]

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience_s
        wait_s = _FIRST_WAIT_S
        while True:
            async with self._slots:
                answer = await self._send(path, body)
            if answer is not None and answer.status_code == 200:
                return answer.json()
            if answer is not None and answer.status_code not in _AGAIN:
                raise _problem(answer)
            if time.monotonic() + wait_s > deadline:
                raise _away(answer)
            await asyncio.sleep(_retry_after(answer, wait_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _send(self, path: str, body: dict[str, Any]) -> httpx.Response | None:
        try:
            return await self._client.post(path, json=body)
        except httpx.TransportError as error:
            log.warning("live_away", path=path, error=type(error).__name__)
            return None


def _trace(result: ActivationsOnText) -> Trace:
    values = tuple(0.0 if value is None else value for value in result.features[0].values)
    return Trace(tuple(result.token_ids), tuple(result.tokens), values)


def _parts(sizes: Sequence[int], limit: int) -> Iterator[slice]:
    """Runs of rows that are within the limits of one request, as far as single rows are."""
    start = total = 0
    for at, size in enumerate(sizes):
        if at > start and (total + size > limit or at - start >= MAX_TEXTS):
            yield slice(start, at)
            start, total = at, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _retry_after(answer: httpx.Response | None, wait_s: float) -> float:
    told = "" if answer is None else answer.headers.get("retry-after", "")
    return min(float(told), _LONGEST_WAIT_S) if told.isdigit() else wait_s


def _problem(answer: httpx.Response) -> Problem:
    """What was refused, in the words of who refused it."""
    try:
        told = answer.json()
        detail = str(told["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"HTTP {answer.status_code}"
    if answer.status_code == 404:
        return NotFound(f"The live model says: {detail}")
    if answer.status_code < 500:
        return Invalid(f"The live model says: {detail}")
    return Unavailable(f"The live model failed: {detail}")


def _away(answer: httpx.Response | None) -> Unavailable:
    how = "cannot be reached" if answer is None else f"answers {answer.status_code}"
    return Unavailable(
        f"The live model is not available: the gateway {how}. It is needed to run texts on the feature."
    )
