"""all-MiniLM-L6-v2 in numpy: a BERT of six layers whose token vectors are averaged. No torch.

Source: Reimers & Gurevych 2019 (arXiv 1908.10084) for the averaging; Devlin et al. 2019 (arXiv 1810.04805)
for the encoder; the weights are `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from interpedia_shared.embeddings.embedder import WIDTH
from interpedia_shared.embeddings.weights import check_weights, find_weights

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256
"""Longer texts are cut, as the model was trained."""
LAYERS = 6
HEADS = 12
EPSILON = 1e-12
BATCH_TOKENS = 4096
"""Tokens of one forward pass, padding included: about 60 MB of intermediate values."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: Floats  # [d_out, d_in], as in the file
    bias: Floats  # [d_out]

    def __call__(self, x: Floats) -> Floats:
        flat = x.reshape(-1, x.shape[-1])
        # This way round the few rows of a query take a quarter less time than x @ weight.T.
        return (self.weight @ flat.T).T.reshape(*x.shape[:-1], -1) + self.bias


@dataclass(frozen=True, slots=True)
class _Norm:
    gain: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("...i,...i->...", centred, centred)[..., None] / x.shape[-1]
        return centred * (self.gain / np.sqrt(variance + EPSILON)) + self.bias


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_in: _Dense  # queries, keys and values in one product
    attention_out: _Dense
    attention_norm: _Norm
    up: _Dense
    down: _Dense
    norm: _Norm

    def __call__(self, x: Floats, bias: Floats) -> Floats:
        x = self.attention_norm(x + self.attention_out(self._attend(x, bias)))
        return self.norm(x + self.down(_gelu(self.up(x))))

    def _attend(self, x: Floats, bias: Floats) -> Floats:
        rows, length, width = x.shape
        split = self.attention_in(x).reshape(rows, length, 3, HEADS, width // HEADS)
        queries, keys, values = (split[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
        scores = queries @ keys.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(width // HEADS)) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ values).transpose(0, 2, 1, 3).reshape(rows, length, width)


class MiniLM:
    """The bundled embedder."""

    model = MODEL

    def __init__(self, tokenizer: Tokenizer, weights: Mapping[str, Floats]) -> None:
        self._tokenizer = tokenizer
        self._words = weights["embeddings.word_embeddings.weight"]
        # The second of two segments is never used: its first row is the same for every token.
        self._places = (
            weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _norm(weights, "embeddings.LayerNorm")
        self._layers = [_layer(weights, f"encoder.layer.{number}") for number in range(LAYERS)]

    @classmethod
    def load(cls, folder: Path | None = None) -> MiniLM:
        """Read the checked weights, and keep the process's linear algebra to one thread.

        Products this small only lose by being shared out, a hundredfold when the cores are busy.

        Raises:
            EmbeddingUnavailable: the weights are not installed, or not the expected ones.
        """
        folder = folder or find_weights()
        check_weights(folder)
        threadpool_limits(limits=1, user_api="blas")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return cls(tokenizer, load_file(folder / "model.safetensors"))

    def embed(self, texts: Sequence[str]) -> Floats:
        """Shape [len(texts), 384], rows of length 1; half a surrogate pair counts as a question mark."""
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        readable = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        ids = [one.ids for one in self._tokenizer.encode_batch(readable)]
        for chosen in _batches([len(one) for one in ids]):
            vectors[chosen] = self._forward([ids[number] for number in chosen])
        return vectors

    def close(self) -> None:
        """There is nothing to close."""

    def _forward(self, ids: Sequence[Sequence[int]]) -> Floats:
        length = max(map(len, ids))
        padded = np.zeros((len(ids), length), np.int64)
        mask = np.zeros((len(ids), length), np.float32)
        for row, one in enumerate(ids):
            padded[row, : len(one)] = one
            mask[row, : len(one)] = 1
        x = self._norm(self._words[padded] + self._places[:length])
        bias = ((mask - 1) * 1e9)[:, None, None, :]  # what is padding gets no attention
        for layer in self._layers:
            x = layer(x, bias)
        mean = np.einsum("rtw,rt->rw", x, mask) / mask.sum(axis=1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like length together, so that little is padded; positions in the list given."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[number] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _gelu(x: Floats) -> Floats:
    """x·Φ(x), with the error function to 1.5e-7.

    Source: Abramowitz & Stegun 1964, 7.1.26.
    """
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.float32(1.061405429) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(coefficient)) * t
    error = 1 - series * np.exp(-z * z)
    return np.float32(0.5) * x * (1 + np.copysign(error, x))


def _dense(weights: Mapping[str, Floats], *names: str) -> _Dense:
    """Linear maps side by side in one."""
    weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    return _Dense(weight, np.concatenate([weights[f"{name}.bias"] for name in names]))


def _norm(weights: Mapping[str, Floats], name: str) -> _Norm:
    return _Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _layer(weights: Mapping[str, Floats], name: str) -> _Layer:
    attention = f"{name}.attention"
    parts = [f"{attention}.self.{part}" for part in ("query", "key", "value")]
    return _Layer(
        attention_in=_dense(weights, *parts),
        attention_out=_dense(weights, f"{attention}.output.dense"),
        attention_norm=_norm(weights, f"{attention}.output.LayerNorm"),
        up=_dense(weights, f"{name}.intermediate.dense"),
        down=_dense(weights, f"{name}.output.dense"),
        norm=_norm(weights, f"{name}.output.LayerNorm"),
    )
