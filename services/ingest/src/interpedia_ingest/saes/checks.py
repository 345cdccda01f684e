"""What one manifest asks for, checked against the model. No torch; blocking: call from a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpedia_engine.errors import BadSAEConfig, EngineError
from interpedia_engine.hooks import Hook, ModelShape, hook_width, module_point, parse_hook
from interpedia_engine.layouts import layout_of
from interpedia_engine.saes import SAEConfig, SAEInfo, check_sae
from interpedia_ingest.refusals import refuse, refuse_engine
from interpedia_shared.contracts.provenance import HookSite
from interpedia_shared.contracts.publishing import SAEManifest
from interpedia_shared.db.base import JSON
from interpedia_shared.problems import BadSAE

IDENTITY = "identity"
_FIRST_VERSION = "6.0.0"


@dataclass(frozen=True, slots=True)
class CheckedSAE:
    """A manifest that holds, and what was found in its files."""

    pointer: str
    manifest: SAEManifest
    hook: Hook
    hook_out: Hook
    architecture: str
    d_in: int
    d_out: int
    d_sae: int
    config: JSON
    """What `sae.config` keeps: a `cfg.json` that SAELens reads, with nothing that a loader would act upon."""
    weights_sha256: str | None = None
    n_weight_bytes: int = 0
    notes: tuple[str, ...] = ()
    decoder_norms: tuple[float, float, float] | None = None

    @property
    def weights_uri(self) -> str | None:
        """The weights in the blob store, which names files by their SHA-256."""
        return None if self.weights_sha256 is None else f"blob:{self.weights_sha256}"

    @property
    def is_dense(self) -> bool:
        """Whether nearly every activation is non-zero, so that spills are as large as the activations."""
        return self.architecture == IDENTITY


def check_manifest(
    pointer: str, manifest: SAEManifest, files: Mapping[str, Path] | None, shape: ModelShape
) -> CheckedSAE:
    """Check one manifest.

    Args:
        pointer: Where in the request it stands.
        manifest: What is asked for.
        files: The upload's files by name; None for an identity dictionary without an upload.
        shape: The model's.

    Raises:
        BadSAE: names the field of the request and the fact.
    """
    hook = _hook(f"{pointer}/hook", manifest.hook, shape)
    hook_out = None
    if manifest.hook_out is not None:
        hook_out = _hook(f"{pointer}/hook_out", manifest.hook_out, shape)
    if files is None:
        if hook_out is not None and hook_out != hook:
            detail = (
                f"is {hook_out.name}, which has no meaning here: identity writes where it reads, {hook.name}"
            )
            raise refuse(BadSAE, f"{pointer}/hook_out", detail)
        return _identity(pointer, manifest, hook, shape)
    try:
        info = check_sae(files, shape, hook=hook, hook_out=hook_out)
        _same_place(pointer, info.cfg, hook, shape)
    except EngineError as error:
        # The request's own field; a tensor of that name would be the file's.
        if isinstance(error, BadSAEConfig) and error.field == "hook_out":
            raise refuse(BadSAE, f"{pointer}/hook_out", error.detail) from error
        raise refuse_engine(BadSAE, f"{pointer}/upload", error) from error
    return _from_files(pointer, manifest, info)


def hook_site(hook: Hook, shape: ModelShape, *, norm_epsilon: float | None) -> JSON:
    """Where plain `transformers` modules carry a hook, for the snippet that a dashboard shows."""
    layout = layout_of(shape.architecture)
    path, side = module_point(hook.kind, layout)
    block = None if hook.kind == "embed" else f"{layout.layers}.{hook.layer}"
    normalise = None
    if hook.kind == "mlp_normalized":
        normalise = "layer" if layout.norm == "layer" else "rms"
    return HookSite(
        module=".".join(part for part in (block, path) if part),
        side=side,
        normalise=normalise,
        epsilon=None if normalise is None else norm_epsilon,
    ).model_dump()


def _hook(pointer: str, name: str, shape: ModelShape) -> Hook:
    try:
        return parse_hook(name, shape)
    except EngineError as error:
        raise refuse(BadSAE, pointer, error.detail) from error


def _same_place(pointer: str, cfg: SAEConfig, hook: Hook, shape: ModelShape) -> None:
    """A `cfg.json` that names another hook than the manifest: one of the two is a mistake.

    Raises:
        BadSAE: they differ.
        EngineError: `cfg.json` names a hook that the model does not have.
    """
    for field, name in (("hook_name", cfg.hook_name), ("hf_hook_name", cfg.hf_hook_name)):
        if name is None:
            continue
        own = parse_hook(name, shape)
        if own != hook:
            detail = f"is {hook.name}, but cfg.json says metadata.{field} = {own.name}"
            raise refuse(BadSAE, f"{pointer}/hook", detail)


def _identity(pointer: str, manifest: SAEManifest, hook: Hook, shape: ModelShape) -> CheckedSAE:
    width = hook_width(hook, shape)
    cfg = SAEConfig(architecture=IDENTITY, d_in=width, d_sae=width, d_out=width)
    return CheckedSAE(
        pointer=pointer,
        manifest=manifest,
        hook=hook,
        hook_out=hook,
        architecture=IDENTITY,
        d_in=width,
        d_out=width,
        d_sae=width,
        config=canonical_config(cfg, hook, hook),
    )


def _from_files(pointer: str, manifest: SAEManifest, info: SAEInfo) -> CheckedSAE:
    cfg = info.cfg
    return CheckedSAE(
        pointer=pointer,
        manifest=manifest,
        hook=info.hook,
        hook_out=info.hook_out,
        architecture=cfg.architecture,
        d_in=cfg.d_in,
        d_out=cfg.d_out,
        d_sae=cfg.d_sae,
        config=canonical_config(cfg, info.hook, info.hook_out),
        weights_sha256=info.weights_sha256,
        n_weight_bytes=info.n_weight_bytes,
        notes=cfg.notes,
        decoder_norms=info.decoder_norms,
    )


def canonical_config(cfg: SAEConfig, hook: Hook, hook_out: Hook) -> JSON:
    """Write a checked configuration as the `cfg.json` of SAELens 6, from the fields that were understood.

    Nothing is passed on that was not: a key that the platform ignores may be one that a loader obeys.
    """
    config: JSON = {
        "architecture": cfg.architecture,
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": cfg.dtype,
        "device": "cpu",
        "apply_b_dec_to_input": cfg.apply_b_dec_to_input,
        "normalize_activations": cfg.normalize_activations,
        "reshape_activations": "none",
        "metadata": _metadata(cfg, hook, hook_out),
    }
    if cfg.is_transcoder:
        config["d_out"] = cfg.d_out
    if cfg.k is not None:
        config |= {"k": cfg.k, "rescale_acts_by_decoder_norm": cfg.rescale_acts_by_decoder_norm}
    if cfg.architecture == IDENTITY:
        config["is_positive_only"] = cfg.is_positive_only
    return config


def _metadata(cfg: SAEConfig, hook: Hook, hook_out: Hook) -> JSON:
    values: dict[str, Any] = {
        "sae_lens_version": _version(cfg.sae_lens_version),
        "model_name": cfg.model_name,
        "hook_name": hook.name,
        "hook_name_out": hook_out.name if hook_out != hook else None,
        "norm_scaling_factor": cfg.norm_scaling_factor,
        "prepend_bos": cfg.prepend_bos,
        "context_size": cfg.context_size,
        "training_architecture": cfg.training_architecture,
    }
    if cfg.input_transform == "center":
        values["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    return {name: value for name, value in values.items() if value is not None}


def _version(version: str | None) -> str:
    """A flat file from before SAELens 6 is written in version 6's form."""
    major = (version or "0").split(".", 1)[0]
    return version if version is not None and major.isdigit() and int(major) >= 6 else _FIRST_VERSION
