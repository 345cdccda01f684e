"""Small random models of every architecture that has a layout, saved as folders."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from interpedia_engine.models import LanguageModel, ModelSource, load_model
from interpedia_engine.models.tiny import build_tiny

_COMMON: dict[str, Any] = {
    "vocab_size": 526,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _COMMON),
    "mistral": ("MistralConfig", _COMMON | {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {k: v for k, v in _COMMON.items() if k != "head_dim"}),
    "qwen3": ("Qwen3Config", _COMMON),
    "phi3": ("Phi3Config", {k: v for k, v in _COMMON.items() if k != "head_dim"}),
    "gemma": ("GemmaConfig", _COMMON),
    "gemma2": ("Gemma2Config", _COMMON | {"sliding_window": 64, "query_pre_attn_scalar": 12}),
    "gemma3_text": ("Gemma3TextConfig", _COMMON | {"sliding_window": 64, "query_pre_attn_scalar": 12}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": 526,
            "n_embd": 48,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        {
            "vocab_size": 526,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
}


def save_random_model(architecture: str, folder: Path) -> Path:
    """Save a random model; gains and biases are not neutral, so that a forgotten one shows."""
    class_name, fields = CONFIGS[architecture]
    config = getattr(transformers, class_name)(**fields)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    _, tokenizer = build_tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def load_random_model(folder: Path) -> LanguageModel:
    return load_model(ModelSource("local", path=str(folder)), cache_dir=folder / "cache")
