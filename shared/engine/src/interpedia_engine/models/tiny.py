"""A deterministic model of a few layers, built in code: tests need no download and no GPU."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

N_LAYERS = 4
D_MODEL = 64
D_MLP = 160
N_HEADS = 4
N_KV_HEADS = 2
MAX_POSITIONS = 512
_SEED = 20240229
_CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = (
    "the and of to in is that it for was on with as at by this from are or an be not we you they have has "
    "had which one all there their were when what can will would more other time people year red blue green "
    "cat dog bird tree river city house water light music"
)


def build_tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Build a Llama of 4 layers and its byte-level tokenizer; the same bits every time."""
    tokenizer = _build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_KV_HEADS,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(_initial(name, parameter.shape, generator))
    return model, tokenizer


def state_sha256(model: torch.nn.Module) -> str:
    """Return a sha256 of the names and bytes of a model's weights (float32)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode("utf-8"))
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _initial(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw weights; gains differ from 1 so that a test sees where one is forgotten."""
    noise = torch.randn(shape, generator=generator)
    if noise.ndim == 1:
        return 1.0 + 0.2 * noise
    if "embed_tokens" in name:
        return noise
    return noise / shape[-1] ** 0.5


def _build_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*_SPECIAL, *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in _WORDS.split():
        for spelled in (word, f"\u0120{word}"):  # with and without the mark of a leading space
            piece = spelled[0]
            for character in spelled[1:]:
                if piece + character not in vocab:
                    merges.append((piece, character))
                    vocab[piece + character] = len(vocab)
                piece += character
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    untyped: Any = backend  # the stubs call these attributes read-only
    untyped.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    untyped.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    arguments: dict[str, Any] = {
        "tokenizer_object": backend,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    return PreTrainedTokenizerFast(**arguments)
