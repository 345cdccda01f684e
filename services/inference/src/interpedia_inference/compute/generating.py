"""The rows of all callers in one running batch of the engine's decoder."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from interpedia_engine.errors import OutOfRange
from interpedia_engine.generation import Decoder, GenerationRequest, TokenEvent
from interpedia_engine.models.language_model import LanguageModel
from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.compute.reader import as_problem
from interpedia_inference.metrics import BATCH_ROWS, TOKENS
from interpedia_inference.settings import InferenceSettings

Events = list[tuple[int, TokenEvent]]
"""Of one step: which of the caller's requests, and what became of it."""


@dataclass(eq=False)
class Group:
    """The outputs of one request; they start together."""

    requests: Sequence[GenerationRequest]
    ticket: Ticket
    deliver: Callable[[Events | BaseException], None]
    rows: dict[int, int] = field(default_factory=dict[int, int])
    """Which of the requests a row of the decoder is, while it runs."""
    unwanted: set[int] = field(default_factory=set[int])
    """Requests that were dropped before they started."""


class Generating:
    """Admits groups as they fit, steps the decoder, hands out the tokens. The compute thread's own."""

    def __init__(self, model: LanguageModel, settings: InferenceSettings) -> None:
        self._model = model
        self._settings = settings
        self._decoder = self._new_decoder()
        self._waiting: deque[Group] = deque()
        self._running: dict[int, Group] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def check(self, requests: Sequence[GenerationRequest]) -> None:
        """Refuse what could never run, even alone. May be called on any thread.

        Raises:
            EngineError: a request is impossible, or they need more room than there is.
        """
        if not 1 <= len(requests) <= self._settings.max_rows:
            raise OutOfRange("requests", f"{len(requests)} outputs are outside 1..{self._settings.max_rows}")
        for request in requests:
            self._decoder.check(request)
        needed, room = len(requests) * max(one.n_tokens for one in requests), self._settings.max_cache_tokens
        if needed > room:
            raise OutOfRange("max_new_tokens", f"{needed} tokens of prompt and outputs are over {room}")

    def add(self, group: Group) -> None:
        """Queue a group."""
        self._waiting.append(group)

    def drop(self, group: Group, index: int | None = None) -> None:
        """Let go of one output of a group, or of all."""
        rows = [row for row, number in group.rows.items() if index is None or number == index]
        self._forget(rows)
        if index is None:
            self._waiting = deque(one for one in self._waiting if one is not group)
        else:
            group.unwanted.add(index)

    def turn(self) -> list[Ticket]:
        """Compute prompts or one token of every row, and return the tickets it was for."""
        for group in {id(group): group for group in self._running.values()}.values():
            if group.ticket.is_over:
                self.drop(group)
        self._admit()
        groups = list({id(group): group for group in self._running.values()}.values())
        if groups:
            self._step(groups)
        return [group.ticket for group in groups]

    def clear(self) -> list[Group]:
        """Drop everything and return the groups that were there."""
        groups = {id(group): group for group in [*self._waiting, *self._running.values()]}
        self._forget(list(self._running))
        self._waiting.clear()
        return list(groups.values())

    def _new_decoder(self) -> Decoder:
        settings = self._settings
        return Decoder(
            self._model,
            max_rows=settings.max_rows,
            max_total_tokens=settings.max_cache_tokens,
            prefill_tokens=settings.max_prompt_tokens,
        )

    def _admit(self) -> None:
        """First come, first served: a large group is not overtaken for ever by small ones."""
        while self._waiting:
            group = self._waiting[0]
            wanted = [number for number in range(len(group.requests)) if number not in group.unwanted]
            requests = [group.requests[number] for number in wanted]
            if group.ticket.is_over or not requests:
                self._waiting.popleft()
                continue
            try:
                if not self._decoder.fits(requests):
                    return
                rows = self._decoder.admit(requests)
            except Exception as error:  # noqa: BLE001 (what one request asks for must not stop the others)
                self._waiting.popleft()
                group.deliver(as_problem(error, "generate"))
                continue
            self._waiting.popleft()
            group.rows = dict(zip(rows, wanted, strict=True))
            self._running.update(dict.fromkeys(rows, group))

    def _step(self, groups: Sequence[Group]) -> None:
        BATCH_ROWS.labels("generate").observe(len(self._running))
        try:
            events = self._decoder.step()
        except Exception as error:  # noqa: BLE001 (the decoder's state is lost, the service is not)
            problem = as_problem(error, "generate")
            self._running.clear()
            self._decoder = self._new_decoder()
            for group in groups:
                group.deliver(problem)
            return
        TOKENS.labels("generate").inc(len(events))
        told: defaultdict[int, Events] = defaultdict(list)
        for event in events:
            group = self._running.get(event.row)
            if group is not None:
                told[id(group)].append((group.rows[event.row], event))
        for group in groups:
            if found := told.get(id(group)):
                group.deliver(found)
        self._forget([event.row for event in events if event.finish is not None], is_gone=True)

    def _forget(self, rows: Sequence[int], *, is_gone: bool = False) -> None:
        if not is_gone:
            self._decoder.drop(rows)
        for row in rows:
            group = self._running.pop(row, None)
            if group is not None:
                group.rows.pop(row, None)
