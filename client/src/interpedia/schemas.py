"""What the API answers with, as far as the client looks at it; further fields are kept as they come."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from interpedia.references import FeatureRef

Item = TypeVar("Item", bound="Resource")

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
UploadKind = Literal["sae", "corpus"]


class Resource(BaseModel):
    """Base of everything the API returns: unknown fields are kept and shown."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """All fields, also those this version of the client does not know."""
        return self.model_dump(mode="json")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = None


class Model(Resource):
    """A language model."""

    id: str
    name: str | None = None


class Sae(Resource):
    """A dictionary of features at one hook of one model."""

    model: str
    sae: str
    hook: str | None = None
    state: str = ""
    version: int | None = None
    """The build whose dashboards are shown; None before the first is complete."""


class Corpus(Resource):
    """A tokenised text data set."""

    id: str
    state: str = ""


class Feature(Resource):
    """A feature in a list, or its whole dashboard."""

    ref: str
    model: str
    sae: str
    index: int

    @property
    def reference(self) -> FeatureRef:
        """The feature's name as an object."""
        return FeatureRef(self.model, self.sae, self.index)


class BatchItem(Resource):
    """One answer of a batch: what was asked for, or the problem with it."""

    ref: str
    summary: Feature | None = None
    dashboard: Feature | None = None
    problem: dict[str, Any] | None = None


class Job(Resource):
    """Long work as the API shows it."""

    id: str
    kind: str = ""
    state: JobState
    stage: str | None = None
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    error: Any = None

    @property
    def is_over(self) -> bool:
        """True when the state will not change by itself any more."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def fraction(self) -> float:
        """Progress from 0 to 1; 0 while the total is not known."""
        return min(1.0, self.done / self.total) if self.total > 0 else float(self.state == "succeeded")

    @property
    def reason(self) -> str | None:
        """Why it failed, as text."""
        if isinstance(self.error, dict):
            told = cast(dict[str, Any], self.error)
            return str(told.get("detail") or told.get("title") or told)
        return None if self.error is None else str(self.error)


class JobEvent(Resource):
    """Something that happened to a job. Ids grow."""

    id: int
    type: str
    data: dict[str, Any] = Field(default_factory=dict[str, Any])


class Part(Resource):
    """A piece of one file of an upload: bytes `offset` to `offset + size` of `file`."""

    n: int
    file: str
    offset: int
    size: int
    received: bool = False


class Upload(Resource):
    """Files on their way to the server."""

    id: str
    state: str
    part_bytes: int = 0
    parts: list[Part] = Field(default_factory=list[Part])


class Publication(Resource):
    """What publishing SAEs answers with: the SAEs, and the job that builds their dashboards."""

    saes: list[Sae]
    job: Job


class Acceptance(Resource):
    """What registering a model or a corpus answers with."""

    job: Job | None = None
    """None when it was registered so long ago that its job is no longer kept."""


class Explanation(Resource):
    """A text about a feature; `scores` tell how well it holds."""

    id: int
    ref: str
    text: str
    method: str = ""
    author: str = ""
    is_default: bool = False
    best_score: float | None = None
    scores: list[Resource] = Field(default_factory=list[Resource])


class Hit(Feature):
    """A feature that was found, and by what."""

    score: float
    matches: list[Resource] = Field(default_factory=list[Resource])
    explanation: Resource | None = None

    @property
    def text(self) -> str | None:
        """What the feature is said to do."""
        return None if self.explanation is None else self.explanation.to_dict()["text"]


class Found(Resource):
    """What a search found, best first."""

    items: list[Hit]
    note: str | None = None


class Work(Resource):
    """Accepted work: the job, or with `dry_run` what it would cost."""

    job: Job | None = None
    runs: dict[str, str] = Field(default_factory=dict[str, str])
    estimate: Resource | None = None


class Generation(Resource):
    """One output of steering."""

    text: str
    tokens: list[str] = Field(default_factory=list[str])
    token_ids: list[int] = Field(default_factory=list[int])
    logprobs: list[float] = Field(default_factory=list[float])


class SharedRun(Resource):
    """Where a shared run can be read."""

    id: str
    url: str


class Steering(Resource):
    """Default and steered; one of them None when it was not asked for."""

    default: Generation | None = None
    steered: Generation | None = None
    shared: SharedRun | None = None
