"""Generating text, many rows at once, each with interventions and sampling of its own."""

from interpedia_engine.errors import NoRoom, UnsupportedChat
from interpedia_engine.generation.chat import ChatTokens, chat_tokens, special_ids
from interpedia_engine.generation.decoder import Decoder
from interpedia_engine.generation.request import (
    FinishReason,
    GenerationRequest,
    Sampling,
    TokenEvent,
)
from interpedia_engine.generation.text import StreamedText

__all__ = [
    "ChatTokens",
    "Decoder",
    "FinishReason",
    "GenerationRequest",
    "NoRoom",
    "Sampling",
    "StreamedText",
    "TokenEvent",
    "UnsupportedChat",
    "chat_tokens",
    "special_ids",
]
