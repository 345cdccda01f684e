"""Chats in the model's own template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from interpedia_engine.errors import UnsupportedChat
from interpedia_engine.models.language_model import LanguageModel


@dataclass(frozen=True)
class ChatTokens:
    """A chat as the model reads it."""

    ids: tuple[int, ...]
    special: tuple[bool, ...]
    """True for special tokens of the tokenizer (`<|im_start|>`), which carry structure, no content."""

    @property
    def special_positions(self) -> frozenset[int]:
        """What `GenerationRequest.protected` takes."""
        return frozenset(position for position, is_special in enumerate(self.special) if is_special)


def chat_tokens(
    model: LanguageModel, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
) -> ChatTokens:
    """Return the tokens of a chat; the template decides about BOS by itself.

    Args:
        model: Whose tokenizer has the template.
        messages: `{"role": …, "content": …}` each.
        add_generation_prompt: End with the beginning of the assistant's turn.

    Raises:
        UnsupportedChat: there is no template, or it refuses these messages.
    """
    tokenizer: Any = model.tokenizer
    if not tokenizer.chat_template:
        raise UnsupportedChat("messages", "the model's tokenizer has no chat template; send a prompt")
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except jinja2.TemplateError as error:
        raise UnsupportedChat("messages", f"the model's template refuses them: {error}") from error
    ids = model.tokenize(text)
    known = special_ids(model)
    return ChatTokens(tuple(ids), tuple(token in known for token in ids))


def special_ids(model: LanguageModel) -> frozenset[int]:
    """Return the ids of the tokenizer's special tokens."""
    tokenizer: Any = model.tokenizer
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))
