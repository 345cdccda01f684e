"""Which keys a decoding step may see: rows of different lengths, sliding windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interpedia_engine.errors import UnsupportedArchitecture
from interpedia_engine.models.language_model import LanguageModel

Mask = Tensor | dict[str, Tensor | None] | None

_MASK_BY_LAYER_TYPE = frozenset({"qwen2", "qwen3", "gemma2", "gemma3_text"})
"""Architectures whose layers may differ; their forward takes a mask for each type of layer."""
_ONE_WINDOW_FOR_ALL = frozenset({"mistral", "phi3"})
_LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})
"""Rotary frequencies that change once any row of the batch is long."""


class StepMasks:
    """Builds the masks of decoding steps for one model."""

    def __init__(self, model: LanguageModel) -> None:
        """Look at the model's attention.

        Raises:
            UnsupportedArchitecture: it has a sliding window, and it is not known how its layers use it.
        """
        config: Any = model.hf.config
        architecture = model.shape.architecture
        self._dtype = model.dtype
        self._device = model.device
        window: int | None = getattr(config, "sliding_window", None)
        self._types: tuple[str, ...] = ()
        if window is not None and architecture in _MASK_BY_LAYER_TYPE:
            self._types = tuple(sorted(set(config.layer_types)))
        elif window is not None and architecture not in _ONE_WINDOW_FOR_ALL:
            raise UnsupportedArchitecture("model", f"{architecture} with a sliding window is not known here")
        self._window = window

    def of_step(self, lengths: Sequence[int]) -> Mask:
        """Return the mask of a step in which row r's new token is at position `lengths[r]`.

        True zeros where a key may be seen, the lowest number elsewhere; None where every row sees all.
        """
        everything = self._tensor(lengths, None)
        if self._window is None:
            return everything
        within = self._tensor(lengths, self._window)
        if not self._types:
            return within
        return {name: within if name == "sliding_attention" else everything for name in self._types}

    def _tensor(self, lengths: Sequence[int], window: int | None) -> Tensor | None:
        last = max(lengths)
        is_full = min(lengths) == last and (window is None or last < window)
        if is_full and not self._types:
            return None
        newest = torch.tensor(lengths, dtype=torch.int64, device=self._device).unsqueeze(1)
        position = torch.arange(last + 1, device=self._device)
        seen = position <= newest
        if window is not None:
            seen &= position > newest - window
        lowest = torch.finfo(self._dtype).min
        mask = torch.zeros(seen.shape, dtype=self._dtype, device=self._device).masked_fill_(~seen, lowest)
        return mask[:, None, None, :]


def longest_context(model: LanguageModel) -> int:
    """Return the most positions that rows of a batch may have without touching each other.

    Some rotary embeddings (phi3's `longrope`, `dynamic`) change for the whole batch once a row outgrows the
    length that the model was first trained at; rows end there.
    """
    config: Any = model.hf.config
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    sets = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    limits = [model.max_positions]
    for one in sets:
        if one.get("rope_type") in _LENGTH_DEPENDENT:
            original = one.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            limits.append(int(original or model.max_positions))
    return min(limits)
