"""From documents to contexts: tokenise, cut into windows that do not overlap, drop the tails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpedia_engine.models import LanguageModel
from interpedia_ingest.corpora.documents import Document
from interpedia_ingest.corpora.repository import ContextRow
from interpedia_shared.tokens import pack_ids, token_width

_BATCH_DOCUMENTS = 64
_BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """The shape of all contexts of a corpus."""

    context_length: int
    bos_id: int | None
    """Put before every context when given; `context_length` includes it."""
    width: int
    """Bytes of a packed id."""

    @classmethod
    def of(cls, model: LanguageModel, *, context_length: int, prepend_bos: bool) -> Window:
        """The window of one model's corpus."""
        return cls(context_length, model.bos_id if prepend_bos else None, token_width(model.shape.d_vocab))

    @property
    def text_length(self) -> int:
        """Tokens of text in a context."""
        return self.context_length - (self.bos_id is not None)


@dataclass(slots=True)
class Batch:
    """Some documents and the contexts that were cut from them."""

    documents: list[Document] = field(default_factory=list[Document])
    contexts: list[ContextRow] = field(default_factory=list[ContextRow])
    n_tail_tokens: int = 0
    n_short_documents: int = 0
    """Documents with less text than one context; none of it is kept."""


def batches(documents: Iterable[Document], model: LanguageModel, window: Window) -> Iterator[Batch]:
    """Tokenise documents a few at a time, in order; contexts of a batch number documents through from 0."""
    first = 0
    for group in _groups(documents):
        batch = Batch(documents=group)
        for offset, ids in enumerate(tokenize_all(model, [document.text for document in group])):
            rows = cut(np.asarray(ids, np.uint32), window)
            kept = len(rows) * window.text_length
            batch.n_tail_tokens += len(ids) - kept
            batch.n_short_documents += not len(rows)
            batch.contexts += [
                (pack_ids(row, window.width), first + offset, number * window.text_length)
                for number, row in enumerate(rows)
            ]
        first += len(group)
        yield batch


def tokenize_all(model: LanguageModel, texts: list[str]) -> list[list[int]]:
    """Token ids of several texts, as `model.tokenize(text, special_as_text=True)` has them.

    A document that talks about `<|im_start|>` gets its letters, not the special token.
    """
    tokenizer: Any = model.tokenizer
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return ids


def cut(ids: NDArray[np.uint32], window: Window) -> NDArray[np.uint32]:
    """Whole windows of a document's ids with BOS in front; shape [n, context_length]. The tail is dropped."""
    n = len(ids) // window.text_length
    rows = ids[: n * window.text_length].reshape(n, window.text_length)
    if window.bos_id is None:
        return rows
    return np.concatenate((np.full((n, 1), window.bos_id, np.uint32), rows), axis=1)


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    characters = 0
    for document in documents:
        group.append(document)
        characters += len(document.text)
        if len(group) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
