"""What a build writes into `sae_version.provenance` and `sae_version.settings` and every dashboard shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from interpedia_shared.schemas import Schema


class HookSite(Schema):
    """Where plain `transformers` modules carry the hook; written by the build, which knows hook names."""

    module: str = Field(
        description="Path for `get_submodule`; empty for the model itself.", examples=["model.layers.15"]
    )
    side: Literal["input", "output"] = Field(examples=["output"])
    normalise: Literal["rms", "layer"] | None = Field(
        default=None, description="For `ln2.hook_normalized`: the norm without gain, computed from the input."
    )
    epsilon: float | None = Field(default=None, description="The norm's epsilon, with `normalise`.")


class BuildProvenance(Schema):
    """What the numbers of a build depend on besides the settings. Further members are kept and shown."""

    model_config = ConfigDict(extra="allow")

    model: dict[str, Any] = Field(
        default_factory=dict,
        description="`LanguageModel.provenance`: source, revision, dtype, hashes, versions.",
    )
    hook: str | None = Field(default=None, examples=["blocks.15.hook_resid_post"])
    hook_site: HookSite | None = None
    prepend_bos: bool | None = Field(default=None, description="Position 0 of each context is a BOS.")
    masking: str | None = Field(default=None, description="Which positions do not count, in words.")
    sae_sha256: str | None = None
    corpus: str | None = None
    corpus_digest: str | None = None
    selection_digest: str | None = Field(default=None, description="Digest of the contexts chosen.")
    final_norm_gain: bool | None = Field(
        default=None, description="Whether logit effects include the gain of the model's final norm."
    )
    code_version: str | None = None
