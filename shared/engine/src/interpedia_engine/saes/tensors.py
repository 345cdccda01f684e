"""Which tensors each architecture has, and in what shapes. No torch."""

from __future__ import annotations

from interpedia_engine.errors import BadWeights, WidthMismatch
from interpedia_engine.saes.config import SAEConfig
from interpedia_engine.saes.header import WeightsHeader


def expected_tensors(cfg: SAEConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that an SAE of this configuration has."""
    if cfg.architecture == "identity":
        return {}
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (cfg.d_in, cfg.d_sae),
        "W_dec": (cfg.d_sae, cfg.d_out),
        "b_dec": (cfg.d_out,),
    }
    if cfg.architecture == "gated":
        shapes |= {"b_gate": (cfg.d_sae,), "b_mag": (cfg.d_sae,), "r_mag": (cfg.d_sae,)}
    else:
        shapes["b_enc"] = (cfg.d_sae,)
    if "jumprelu" in cfg.architecture:
        shapes["threshold"] = (cfg.d_sae,)
    if "skip" in cfg.architecture:
        shapes["W_skip"] = (cfg.d_out, cfg.d_in)
    return shapes


OPTIONAL_TENSORS = ("scaling_factor",)
"""Old files carry it; it is accepted when it is all ones, which changes nothing."""


def optional_tensors(cfg: SAEConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that an SAE of this configuration may have besides.

    Source: SAELens before 6, which saved one factor per feature.
    """
    return dict.fromkeys(OPTIONAL_TENSORS, (cfg.d_sae,))


def check_tensors(cfg: SAEConfig, header: WeightsHeader) -> None:
    """Compare a header with what the configuration promises.

    Raises:
        BadWeights: a tensor is missing, or one is there that the architecture does not have.
        WidthMismatch: a tensor has another shape than the configuration's sizes give.
    """
    expected = expected_tensors(cfg)
    names = {entry.name for entry in header.entries}
    for name in expected:
        if name not in names:
            raise BadWeights(name, f"is missing; a {cfg.architecture} SAE has {', '.join(expected)}")
    accepted = expected | optional_tensors(cfg)
    for entry in header.entries:
        if entry.name not in accepted:
            raise BadWeights(entry.name, f"does not belong to a {cfg.architecture} SAE")
        if entry.shape != accepted[entry.name]:
            raise WidthMismatch(
                entry.name,
                f"has shape {list(entry.shape)}, but d_in={cfg.d_in}, d_sae={cfg.d_sae}, d_out={cfg.d_out} "
                f"give {list(accepted[entry.name])}",
            )
