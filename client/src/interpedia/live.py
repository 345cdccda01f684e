"""Live requests: what a model does with a text now, and what it would do otherwise.

Every answer has `timings` and `provenance`; fields are those of the API, described at `/docs` of the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote

from interpedia.errors import ServerUnreachable, error_in
from interpedia.references import FeatureRef
from interpedia.schemas import Job, Resource, Steering
from interpedia.server_sent import messages
from interpedia.transport import Request, Transport

PATIENCE_SECONDS = 150.0
"""How long an answer is waited for when the request has no `deadline_s`; then, that and a little."""
GRACE_SECONDS = 20.0


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Intervention(TypedDict, total=False):
    """One change: of a feature (`sae`, `feature`) or along a direction of one's own (`vector`, `hook`)."""

    sae: str
    feature: int
    vector: Sequence[float]
    hook: str
    method: Literal["add", "clamp", "scale", "ablate", "orthogonal", "project_cap"]
    strength: float
    unit: Literal["max_activation", "raw"]
    positions: Literal["all", "prompt", "generated"] | Sequence[int]


class Metric(TypedDict, total=False):
    """logsumexp of the logits of the tokens `good` minus that of `bad`, at one position."""

    good: Sequence[str]
    bad: Sequence[str]
    position: int


class Options(TypedDict, total=False):
    """What all live requests take."""

    prepend_bos: bool
    deadline_s: float


class ActivationsOptions(Options, total=False):
    """What to read, at least one of the first three, and on what if not on texts."""

    features: Iterable[FeatureRef | str]
    saes: Sequence[str]
    vectors: Sequence[Mapping[str, Any]]
    token_ids: Sequence[Sequence[int]]
    ignore_bos: bool


class TopOptions(Options, total=False):
    """How the top features are chosen."""

    k: int
    by: Literal["max", "positions", "token"]
    positions: Sequence[int]
    min_density: float
    max_density: float
    ignore_bos: bool
    with_values: bool


class SteerOptions(Options, total=False):
    """A prompt or a chat, what to change, and how to sample; the API documents each."""

    prompt: str
    messages: Sequence[Message]
    interventions: Sequence[Intervention]
    outputs: Sequence[Literal["default", "steered"]]
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    seed: int
    stop: Sequence[str]
    n_logprobs: int
    skip_special_tokens: bool
    share: bool


class AblateOptions(Options, total=False):
    """How the features are taken out, and what is looked at."""

    method: Literal["zero", "mean", "resample"]
    resample_text: str
    seed: int
    positions: Sequence[int]
    metric: Metric
    k: int


class AttributeOptions(Options, total=False):
    """How attributions are found, and how many are checked by ablation."""

    method: Literal["gradient_x_activation", "attribution_patching", "integrated_gradients"]
    corrupt_text: str
    steps: int
    k: int
    exact: int


class LensOptions(Options, total=False):
    """Which part of the text and of the model is looked at."""

    layers: Sequence[int]
    positions: Sequence[int]
    k: int


class SearchOptions(TypedDict, total=False):
    """How a prompt search goes."""

    n: int
    seed: int
    method: Literal["gradient_x_activation", "attribution_patching"]
    k: int
    controls: Sequence[str]


@dataclass(frozen=True)
class SteerEvent:
    """Something of a stream: `start`, a `token` (of the output `data.output`), or `done` with all of it."""

    event: str
    data: Resource


class Live:
    """`client.live`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def models(self) -> list[Resource]:
        """The models that are served live: whether they are ready, and what one request may ask for."""
        return self._items("/v1/live", None)

    def tokenize(
        self,
        model: str,
        text: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        **options: Unpack[Options],
    ) -> Resource:
        """The tokens of a text, or of a chat in the model's own template."""
        given = {"text": text, "messages": messages}
        said = {name: value for name, value in given.items() if value is not None}
        return self._ask("/v1/tokenize", {"model": model, **said, **options})

    def activations(
        self, model: str, texts: Sequence[str] = (), **options: Unpack[ActivationsOptions]
    ) -> Resource:
        """What features, whole SAEs or directions do at each token of the texts."""
        body: dict[str, Any] = {"model": model, **options}
        if texts:
            body["texts"] = list(texts)
        if "features" in options:
            body["features"] = _refs(options["features"])
        return self._ask("/v1/activations", body)

    def top_features(
        self, model: str, text: str, saes: Sequence[str], **options: Unpack[TopOptions]
    ) -> Resource:
        """The features that a text activates most."""
        return self._ask("/v1/activations/top", {"model": model, "text": text, "saes": list(saes), **options})

    def steer(self, model: str, **options: Unpack[SteerOptions]) -> Steering:
        """Default and steered, side by side.

        Raises:
            Unauthorized: `share` needs a key.
        """
        return self._transport.read(_post("/v1/steer", {"model": model, **options}), Steering)

    def steer_stream(self, model: str, **options: Unpack[SteerOptions]) -> Iterator[SteerEvent]:
        """The same token by token, as they are generated; leaving the loop stops the generation.

        Raises:
            ServerUnreachable: the stream broke off.
            ApiError: the server refused, or failed in the middle.
        """
        request = _post("/v1/steer", {"model": model, **options, "stream": True})
        with self._transport.stream_lines(request) as lines:
            for message in messages(lines):
                body: object = json.loads(message.data)
                if message.event == "error":
                    raise error_in(body)
                yield SteerEvent(message.event, Resource.model_validate(body))
                if message.event == "done":
                    return
        raise ServerUnreachable("The stream broke off before it was done.")

    def shared(self, run: str) -> Resource:
        """A shared steering run by its id: request and answer."""
        return self._transport.read(Request("GET", _shared(run)), Resource)

    def take_back(self, run: str) -> None:
        """Delete a run that you shared."""
        self._transport.send(Request("DELETE", _shared(run)))

    def ablate(
        self,
        model: str,
        text: str,
        features: Iterable[FeatureRef | str],
        **options: Unpack[AblateOptions],
    ) -> Resource:
        """What the model predicts without the features."""
        body = {"model": model, "text": text, "features": _refs(features), **options}
        return self._ask("/v1/ablate", body)

    def attribute(
        self,
        model: str,
        text: str,
        saes: Sequence[str],
        *,
        metric: Metric,
        **options: Unpack[AttributeOptions],
    ) -> Resource:
        """The features behind a logit or logit difference."""
        body = {"model": model, "text": text, "saes": list(saes), "metric": metric, **options}
        return self._ask("/v1/attribute", body)

    def lens(self, model: str, text: str, **options: Unpack[LensOptions]) -> Resource:
        """What each layer would predict at each token."""
        return self._ask("/v1/lens", {"model": model, "text": text, **options})

    def templates(self, model: str | None = None) -> list[Resource]:
        """The bundled prompt templates."""
        return self._items("/v1/prompt-templates", model)

    def prompt_search(
        self,
        model: str,
        saes: Sequence[str],
        template: str | Mapping[str, Any],
        **options: Unpack[SearchOptions],
    ) -> Job:
        """Begins the search for the features behind an answer; the result of the job is what it found.

        Raises:
            Unauthorized: it needs a key.
            Invalid: the template does not fit the model's tokenizer; the error names the part.
        """
        body = {"model": model, "saes": list(saes), "template": template, **options}
        answer = self._transport.read(_post("/v1/prompt-search", body), dict[str, Any])
        return Job.model_validate(answer["job"])

    def _ask(self, path: str, body: Mapping[str, Any]) -> Resource:
        return self._transport.read(_post(path, body), Resource)

    def _items(self, path: str, model: str | None) -> list[Resource]:
        answer = self._transport.read(Request("GET", path, {"model": model}), dict[str, Any])
        return [Resource.model_validate(item) for item in answer["items"]]


def _post(path: str, body: Mapping[str, Any]) -> Request:
    deadline = body.get("deadline_s")
    patience = PATIENCE_SECONDS if deadline is None else float(deadline) + GRACE_SECONDS
    return Request("POST", path, json=dict(body), patience=patience)


def _refs(features: Iterable[FeatureRef | str]) -> list[str]:
    return [str(FeatureRef.parse(feature)) for feature in features]


def _shared(run: str) -> str:
    return f"/v1/steer/shared/{quote(run, safe='')}"
