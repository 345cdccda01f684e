"""A loaded language model with what the rest needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interpedia_engine.hooks import ModelShape
from interpedia_engine.models.source import ModelSource
from interpedia_engine.tokens import Vocabulary


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with unprocessed weights, in evaluation mode, without gradients."""

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    shape: ModelShape
    source: ModelSource
    bos_id: int | None
    eos_ids: tuple[int, ...]
    max_positions: int
    vocabulary: Vocabulary
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    """Source, revision, hashes of weights and tokenizer, dtype, library versions: JSON-able."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unembedding.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of captured activations."""
        return self.unembedding.dtype

    @property
    def unembedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The weight of the output layer, W_U transposed."""
        head: Any = self.hf.get_output_embeddings()
        weight: Tensor = head.weight
        return weight

    def tokenize(self, text: str, *, special_as_text: bool = False) -> list[int]:
        """Return the ids of `text` without adding BOS or EOS.

        Args:
            text: Any string.
            special_as_text: Spell out special tokens that occur in the text (`<|im_start|>`) instead of
                turning them into their ids; for documents that merely talk about them.
        """
        ids: list[int] = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=special_as_text, verbose=False
        )["input_ids"]
        return ids

    def run_body(
        self, tokens: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """Run everything but the output layer and return the stream after the final norm.

        Positions count from the first token of a row that is not padding, so that padding on either side
        changes no value.
        """
        body: nn.Module = self.hf.base_model
        ids = tokens.to(device=self.device, dtype=torch.int64)
        arguments: dict[str, Tensor] = {}
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = attention_mask.to(device=self.device, dtype=torch.int64)
            arguments = {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        output: Any = body(input_ids=ids, use_cache=False, **arguments)
        stream: Tensor = output.last_hidden_state
        return stream
