"""Work on explanations: have features explained, explanations scored, hypotheses attacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from interpedia.references import FeatureRef
from interpedia.schemas import Resource, Work
from interpedia.transport import Request, Transport

Method = str | Mapping[str, Any]
"""Of `methods()`: its name, or `{"name": …, "params": {…}}`."""


class WorkOptions(TypedDict, total=False):
    """What all work takes; the API documents each."""

    endpoint: str | None
    """None is for red-teaming with your own texts alone."""
    seed: int
    repeat: int
    budget: Mapping[str, float]
    """`{"tokens": …}`, `{"money": …}` or both: more is never spent."""
    verify: bool
    dry_run: bool
    """Estimate what it costs, and start nothing."""


class FeatureOptions(WorkOptions, total=False):
    """Which features."""

    features: Sequence[FeatureRef | str]
    saes: Sequence[str]
    """As `model/sae`."""
    min_density: float
    max_density: float
    sample: int
    sample_seed: int
    only_failed_of: Sequence[str]


class ScoreOptions(WorkOptions, total=False):
    """Which explanations."""

    explanations: Sequence[int]
    run: str
    features: Sequence[FeatureRef | str]
    only_failed_of: Sequence[str]


class RedTeamOptions(WorkOptions, total=False):
    """What is attacked, and with what."""

    explanation: int
    feature: FeatureRef | str
    hypothesis: str
    texts: Sequence[Mapping[str, Any]]
    rounds: int
    per_kind: int
    use_kept_texts: bool


class Autointerp:
    """`client.autointerp`. Work needs a key; its progress is `jobs.wait(work.job.id)`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def methods(self) -> list[Resource]:
        """Explainers and scorers with their parameters."""
        return self._items("/v1/methods")

    def endpoints(self) -> list[Resource]:
        """The LLM endpoints that are set, with what they were found to be capable of."""
        return self._items("/v1/endpoints")

    def explain(
        self, methods: Iterable[Method], scorers: Iterable[Method] = (), **options: Unpack[FeatureOptions]
    ) -> Work:
        """Have features explained, and the explanations scored."""
        return self._start("explain", {**_chosen(methods=methods, scorers=scorers), **options})

    def score(self, scorers: Iterable[Method], **options: Unpack[ScoreOptions]) -> Work:
        """Have explanations scored."""
        return self._start("score", {**_chosen(scorers=scorers), **options})

    def redteam(self, **options: Unpack[RedTeamOptions]) -> Work:
        """Have a hypothesis attacked with texts that should and should not fire the feature."""
        return self._start("redteam", dict(options))

    def benchmark(
        self, methods: Iterable[Method], scorers: Iterable[Method], **options: Unpack[FeatureOptions]
    ) -> Work:
        """Compare explainers on the same frozen material."""
        return self._start("benchmarks", {**_chosen(methods=methods, scorers=scorers), **options})

    def run(self, run: str) -> Resource:
        """What a run did, with what, and what it spent."""
        return self._transport.read(Request("GET", f"/v1/runs/{run}"), Resource)

    def _start(self, name: str, body: dict[str, Any]) -> Work:
        if "features" in body:
            body["features"] = [str(FeatureRef.parse(feature)) for feature in body["features"]]
        if "feature" in body:
            body["feature"] = str(FeatureRef.parse(body["feature"]))
        return self._transport.read(Request("POST", f"/v1/{name}", json=body), Work)

    def _items(self, path: str) -> list[Resource]:
        answer = self._transport.read(Request("GET", path), dict[str, Any])
        return [Resource.model_validate(item) for item in answer["items"]]


def _chosen(**chosen: Iterable[Method]) -> dict[str, Any]:
    return {
        name: [{"name": method} if isinstance(method, str) else dict(method) for method in methods]
        for name, methods in chosen.items()
    }
