"""One request at this host, and everything that it may ask for."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from interpedia_engine.errors import EngineError
from interpedia_engine.generation import ChatTokens, GenerationRequest, chat_tokens
from interpedia_engine.hooks import Hook, parse_hook
from interpedia_engine.models.language_model import LanguageModel
from interpedia_inference.admission import Admission, Cost, Ticket
from interpedia_inference.compute.compute import Compute
from interpedia_inference.compute.contract import Flags, ReadJob, ReadResult
from interpedia_inference.compute.stream import GenerationStream
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.shelf.saes import SAEShelf
from interpedia_inference.stored import StoredNumbers
from interpedia_shared import __version__
from interpedia_shared.contracts.live.requests import (
    Bos,
    FeatureAt,
    LiveProvenance,
    Message,
    SAESource,
    Timings,
)
from interpedia_shared.problems import FeatureNotFound, Invalid, TooLong
from interpedia_shared.tokens import Vocabulary

T = TypeVar("T")
UNLIMITED = sys.maxsize
"""As the limit of a text that is only tokenised."""
_SHORT_CHARACTERS = 2_000
"""So much of a visit's texts is tokenised at once, in about a millisecond; the rest in a thread."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the model reads it."""

    ids: list[int]
    has_bos: bool
    """Whether the first one is the model's BOS token."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What visits share."""

    settings: InferenceSettings
    admission: Admission
    compute: Compute
    shelf: SAEShelf
    stored: StoredNumbers
    vocabulary: Vocabulary
    """Of the host's model."""


class Visit:
    """Made by `Reception.visit`; what it holds is given back when that block ends.

    Attributes:
        model: The host's model.
        ticket: The request's right to compute.
        stored: What dashboards' builds found out about features.
        settings: The host's limits.
    """

    def __init__(
        self,
        model: LanguageModel,
        ticket: Ticket,
        equipment: Equipment,
        stack: AsyncExitStack,
        *,
        model_id: str,
    ) -> None:
        self.model = model
        self.model_id = model_id
        self.ticket = ticket
        self.stored = equipment.stored
        self.settings = equipment.settings
        self._equipment = equipment
        self._stack = stack
        self._characters = 0

    @property
    def max_text_tokens(self) -> int:
        """Most tokens of one text."""
        return min(self.settings.max_text_tokens, self.model.max_positions)

    @property
    def is_background(self) -> bool:
        """Whether it is a job's: nobody waits for it."""
        return not self.ticket.has_deadline

    @property
    def max_effect_tokens(self) -> int:
        """Most tokens of a text whose effects are measured."""
        return min(self.settings.max_effect_tokens, self.max_text_tokens)

    def check(self) -> None:
        """Pass while the request may go on.

        Raises:
            Problem: its deadline has passed, or its caller has hung up.
        """
        self.ticket.check()

    async def tokenize(
        self, text: str, *, prepend_bos: bool = True, field: str = "#/text", limit: int | None = None
    ) -> Tokens:
        """Tokens of a text. BOS is put in front unless the text begins with it, or the model has none.

        Raises:
            TooLong: more tokens than `limit`, or than a text may have where none is given.
            Invalid: no tokens.
        """
        ids = await self._timed(lambda: self.model.tokenize(text), len(text))
        bos = self.model.bos_id
        if prepend_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        self._check_length(len(ids), field, limit)
        return Tokens(ids, self.has_bos(ids))

    async def tokenize_chat(
        self, messages: Sequence[Message], *, field: str = "#/messages", limit: int | None = None
    ) -> ChatTokens:
        """Tokens of a chat in the model's own template, up to the beginning of the assistant's turn.

        Raises:
            TooLong: as `tokenize`.
            Invalid: the model has no template, or it refuses these messages.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        size = sum(len(message.content) for message in messages)
        try:
            chat = await self._timed(lambda: chat_tokens(self.model, turns), size)
        except EngineError as error:
            raise Invalid.field(field, error.detail) from error
        self._check_length(len(chat.ids), field, limit)
        return chat

    def check_ids(self, ids: Sequence[int], *, field: str) -> None:
        """Check token ids that were given instead of a text.

        Raises:
            TooLong: more than a text may have.
            Invalid: one is outside the vocabulary.
        """
        self._check_length(len(ids), field)
        last = self.model.shape.d_vocab - 1
        for position, token_id in enumerate(ids):
            if not 0 <= token_id <= last:
                detail = f"token id {token_id} is outside 0..{last}"
                raise Invalid.field(f"{field}/{position}", detail, limit=last, value=token_id)

    def has_bos(self, ids: Sequence[int]) -> bool:
        """Whether the first token is the model's BOS."""
        return self.model.bos_id is not None and len(ids) > 0 and ids[0] == self.model.bos_id

    def counted(self, ids: Sequence[int], *, ignore_bos: bool) -> Flags | None:
        """Positions whose activations mean something: all but those that hold BOS; None for all."""
        bos = self.model.bos_id
        if not ignore_bos or bos is None or bos not in ids:
            return None
        return np.asarray(ids) != bos

    def strings(self, ids: Sequence[int]) -> list[str]:
        """Tokens as text; bytes that are no UTF-8 alone as `<0xE2>`."""
        show = self._equipment.vocabulary.show
        return [show(token_id) for token_id in ids]

    def hook(self, field: str, name: str) -> Hook:
        """A hook of the model by any of its names.

        Raises:
            Invalid: there is none of this name.
        """
        try:
            return parse_hook(name, self.model.shape)
        except EngineError as error:
            raise Invalid.field(field, error.detail) from error

    async def borrow(self, slugs: Sequence[str]) -> dict[str, HeldSAE]:
        """SAEs of the model by slug, loaded until the visit ends. Call it once: all are taken together.

        Raises:
            SAENotFound, TooLarge, BadSAE, Unavailable: see `SAEShelf.borrow`.
        """
        if not slugs:
            return {}
        lent = self._equipment.shelf.borrow(self.model_id, self.model.shape, slugs, self.ticket)
        return await self._stack.enter_async_context(lent)

    def check_features(self, held: Mapping[str, HeldSAE], features: Iterable[FeatureAt]) -> None:
        """Check that features exist in the SAEs that are held.

        Raises:
            FeatureNotFound: names the first one outside its SAE, and the range.
        """
        for at in features:
            d_sae = held[at.sae].sae.d_sae
            if at.feature >= d_sae:
                raise FeatureNotFound(self.model_id, at.sae, at.feature, d_sae)

    def charge(self, cost: Cost) -> None:
        """Say what the computation will take, before it is asked for.

        Raises:
            Busy, TooLarge: see `Admission.charge`.
        """
        self._equipment.admission.charge(self.ticket, cost)

    async def read(self, job: ReadJob) -> list[ReadResult]:
        """Read one text; see `Compute.read`."""
        return await self._equipment.compute.read(job, self.ticket)

    async def read_all(self, jobs: Sequence[ReadJob]) -> list[list[ReadResult]]:
        """Read several texts; see `Compute.read_all`."""
        return await self._equipment.compute.read_all(jobs, self.ticket)

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        """Generate outputs; see `Compute.generate`."""
        return self._equipment.compute.generate(requests, self.ticket)

    async def call(
        self,
        function: Callable[[], Generator[Any, None, T]] | Callable[[], T],
        *,
        work: int = 0,
        progress: Callable[[Any], None] | None = None,
    ) -> T:
        """Call a function of the engine on the compute thread; see `Compute.call`.

        Args:
            function: Makes a generator that is run to its end, or computes the result in one go.
            work: Tokens that it will run, so that texts of others are read first meanwhile.
            progress: Takes what the generator yields, on the event loop.
        """
        self.ticket.tokens_run += work
        return await self._equipment.compute.call(
            function, self.ticket, progress=progress, is_background=self.is_background
        )

    def timings(self) -> Timings:
        """Where the time went until now."""
        return self.ticket.timings()

    def provenance(self, *, bos: bool | Bos, saes: Iterable[HeldSAE] = ()) -> LiveProvenance:
        """What the numbers were computed with.

        Args:
            bos: Whether all texts begin with BOS, where that is one answer; else which it is.
            saes: Those that took part.
        """
        facts = self.model.provenance
        return LiveProvenance(
            model=self.model_id,
            revision=facts.get("revision"),
            weights_sha256=facts.get("weights_sha256"),
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=str(self.model.device),
            bos=bos if isinstance(bos, str) else ("prepended" if bos else "none"),
            saes=[
                SAESource(
                    sae=held.slug,
                    hook=held.hook.name,
                    weights_sha256=held.weights_sha256,
                    version=held.version_id,
                )
                for held in saes
            ],
            code_version=__version__,
        )

    async def _timed(self, tokenize: Callable[[], T], characters: int) -> T:
        started = time.perf_counter()
        self._characters += characters
        is_short = self._characters <= _SHORT_CHARACTERS
        found = tokenize() if is_short else await asyncio.to_thread(tokenize)
        self.ticket.tokenized(time.perf_counter() - started)
        self.check()
        return found

    def _check_length(self, length: int, field: str, limit: int | None = None) -> None:
        if length == 0:
            raise Invalid.field(field, "has no tokens")
        limit = self.max_text_tokens if limit is None else limit
        if length > limit:
            raise TooLong.tokens(field, limit=limit, value=length)
