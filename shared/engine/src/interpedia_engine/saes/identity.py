"""The identity dictionary: a model's own coordinates (neurons, a residual basis) as features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.hooks import Hook, ModelShape, hook_width
from interpedia_engine.saes.base import SAE
from interpedia_engine.saes.config import SAEConfig


class IdentitySAE(SAE):
    """Feature i is coordinate i, its activation the coordinate's value; there are no weights.

    Values may be negative. With `is_positive_only` the positive part is kept, and decoding gives that back.
    """

    def __init__(
        self, cfg: SAEConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(cfg, {})
        self._dtype = dtype
        self._device = torch.device(device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that encode and decode compute in."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where `decoder_rows` are made."""
        return self._device

    @property
    def W_enc(self) -> None:  # noqa: N802 - the literature's name
        """There is no encoder."""
        return None

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_out"]:  # noqa: N802 - the literature's name
        """The identity matrix, made anew on each call; prefer `decoder_rows`."""
        return self.decoder_rows(0, self.d_sae)

    def decoder_rows(self, start: int, stop: int) -> Float[Tensor, "n d_out"]:
        """Return unit vectors `start` to `stop` (exclusive), without making the whole matrix.

        Raises:
            OutOfRange: the range is not within 0..d_sae.
        """
        self._check_range(start, stop)
        rows = torch.zeros(stop - start, self.d_out, dtype=self._dtype, device=self._device)
        rows[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        return rows

    def _encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        return x.relu() if self.cfg.is_positive_only else x

    def _decode(self, f: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_out"]:
        return f


def identity_sae(
    hook: Hook,
    shape: ModelShape,
    *,
    is_positive_only: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> IdentitySAE:
    """Make the dictionary of a hook's own coordinates.

    Args:
        hook: Any hook of the model: `mlp.hook_post` for neurons, `hook_resid_post` for the residual basis.
        shape: The model's.
        is_positive_only: Drop negative values, as for neurons whose negative side means nothing.
        dtype: What encode and decode compute in.
        device: Where decoder rows are made.
    """
    width = hook_width(hook, shape)
    cfg = SAEConfig(
        architecture="identity",
        d_in=width,
        d_sae=width,
        d_out=width,
        is_positive_only=is_positive_only,
        hook_name=hook.name,
    )
    return IdentitySAE(cfg, dtype=dtype, device=device)
