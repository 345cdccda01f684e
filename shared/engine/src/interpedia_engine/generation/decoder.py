"""Continuous batching: rows join and leave while others run."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpedia_engine.errors import EngineError, NoRoom, OutOfRange
from interpedia_engine.generation.cache import RowCache
from interpedia_engine.generation.masks import Mask, StepMasks, longest_context
from interpedia_engine.generation.request import FinishReason, GenerationRequest, TokenEvent
from interpedia_engine.generation.sampling import Choice, Draws, choose
from interpedia_engine.interventions.changes import RowChanges, check_change
from interpedia_engine.interventions.edits import EditPlan
from interpedia_engine.interventions.window import Window
from interpedia_engine.models.language_model import LanguageModel

_SLOW_PRODUCTS = range(7, 16)
"""Numbers of rows for which x Wᵀ takes up to twice as long as (W xᵀ)ᵀ in float32 on a CPU: the largest matrix
of the model is worth the difference."""
_NOT_FINITE = "the logits are not finite: an intervention is too strong for the model's number format"


@dataclass(eq=False)
class _Row:
    id: int
    request: GenerationRequest
    draws: Draws
    changes: RowChanges
    length: int = 0
    """Tokens whose keys and values are stored."""
    written: int = 0
    """Positions written to, the padding behind a shorter prompt included."""


class Decoder:
    """Generates the next tokens of many rows together, one forward pass a step.

    Not thread-safe: one thread owns it. Keys and values of at most `max_total_tokens` tokens are kept in
    memory that is taken once, at the first row. They form a rectangle: rows × the longest row's reservation
    (prompt + max_new_tokens), so one long row beside many short ones takes the room of many long ones.

    Slots of the cache: the running rows in order, then the row whose long prompt is half done, if any.
    """

    def __init__(
        self, model: LanguageModel, *, max_rows: int, max_total_tokens: int, prefill_tokens: int = 256
    ) -> None:
        """Make an empty decoder.

        Args:
            model: Whose weights; nothing of it is changed.
            max_rows: Most rows at once.
            max_total_tokens: Most tokens (rows × longest reservation) whose keys and values are kept.
            prefill_tokens: Most prompt tokens, about, that are computed at once, and between two tokens of
                the running rows, so that these are not held up by a long prompt or by many.

        Raises:
            OutOfRange: a number is below 1.
            UnsupportedArchitecture: the model has a sliding window of an unknown kind.
        """
        limits = {
            "max_rows": max_rows,
            "max_total_tokens": max_total_tokens,
            "prefill_tokens": prefill_tokens,
        }
        for name, value in limits.items():
            if value < 1:
                raise OutOfRange(name, f"at least 1 is needed, not {value}")
        self._model = model
        self._max_rows, self._max_tokens, self._chunk = max_rows, max_total_tokens, prefill_tokens
        self._longest = longest_context(model)
        self._masks = StepMasks(model)
        self._cache = RowCache(max_total_tokens)
        self._running: list[_Row] = []
        self._partial: _Row | None = None
        self._waiting: deque[_Row] = deque()
        self._plan: EditPlan | None = None
        self._next_id = 0
        self._short_prompts_turn = True
        self._prompt_tokens = 0
        """Computed since the running rows had their last token, padding included."""

    @property
    def n_rows(self) -> int:
        """Rows that are here, waiting or running."""
        return len(self._rows())

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that the decoder holds or will hold at most."""
        config: Any = self._model.hf.config
        shape = self._model.shape
        n_heads: int = getattr(config, "num_key_value_heads", None) or shape.n_heads
        per_token = 2 * shape.n_layers * n_heads * shape.d_head * self._model.dtype.itemsize
        return per_token * self._max_tokens

    def check(self, request: GenerationRequest) -> None:
        """Check that a request can run here at all, when nothing else does.

        Raises:
            OutOfRange: no prompt, a token outside the vocabulary, no new tokens, or more tokens than the
                model's context or `max_total_tokens`.
            EngineError: a change is impossible, see `check_change`.
        """
        if not request.prompt:
            raise OutOfRange("prompt", "has no tokens")
        if request.max_new_tokens < 1:
            raise OutOfRange("max_new_tokens", f"at least 1 is needed, not {request.max_new_tokens}")
        d_vocab = self._model.shape.d_vocab
        wrong = [token for token in request.prompt if not 0 <= token < d_vocab]
        if wrong:
            raise OutOfRange("prompt", f"token id {wrong[0]} is outside 0..{d_vocab - 1}")
        limit = min(self._longest, self._max_tokens)
        if request.n_tokens > limit:
            raise OutOfRange(
                "max_new_tokens",
                f"{len(request.prompt)} prompt tokens and {request.max_new_tokens} new ones are more than "
                f"the {limit} that a row may have here",
            )
        for change in request.changes:
            check_change(change, self._model)

    def fits(self, requests: Sequence[GenerationRequest]) -> bool:
        """Return whether `admit` would take all of them now."""
        n_rows = self.n_rows + len(requests)
        return n_rows <= self._max_rows and n_rows * self._longest_of(requests) <= self._max_tokens

    def admit(self, requests: Sequence[GenerationRequest]) -> list[int]:
        """Take rows in, all or none, and return their ids in the same order.

        Nothing is computed yet: prompts run in the next steps, those admitted together in one pass if
        `prefill_tokens` allows. Ids are never used again.

        Raises:
            NoRoom: they do not fit now, see `fits`.
            OutOfRange, EngineError: see `check`.
        """
        for request in requests:
            self.check(request)
        if not self.fits(requests):
            raise NoRoom(
                "rows",
                f"{len(requests)} rows beside {self.n_rows} of up to {self._longest_of(requests)} tokens "
                f"exceed {self._max_rows} rows or {self._max_tokens} tokens",
            )
        ids = list(range(self._next_id, self._next_id + len(requests)))
        self._next_id += len(requests)
        self._waiting.extend(self._row(one, request) for one, request in zip(ids, requests, strict=True))
        return ids

    def step(self) -> list[TokenEvent]:
        """Compute prompts that wait, or else one token for each running row.

        Prompts come first, so that whoever joins has a first token soon; but before more than
        `prefill_tokens` of them are computed in a row, the running rows have their turn. A row whose logits
        are not finite ends with an error event; its mates do not notice. Returns nothing when there are no
        rows, or in the middle of a prompt.
        """
        with torch.inference_mode():
            if not self._running:
                self._prompt_tokens = 0
            if self._is_prompts_turn():
                return self._prefill()
            self._prompt_tokens = 0
            return self._decode() if self._running else []

    def drop(self, rows: Collection[int]) -> None:
        """Let rows go, waiting or running; ids of rows that are gone already are ignored."""
        gone = set(rows)
        self._waiting = deque(row for row in self._waiting if row.id not in gone)
        if self._partial is not None and self._partial.id in gone:
            with torch.inference_mode():
                self._forget(len(self._running), self._partial)
            self._partial = None
        for row in [row for row in self._running if row.id in gone]:
            self._leave(row)

    def _rows(self) -> list[_Row]:
        return [*self._running, *([self._partial] if self._partial else []), *self._waiting]

    def _longest_of(self, requests: Sequence[GenerationRequest]) -> int:
        return max((one.n_tokens for one in (*(row.request for row in self._rows()), *requests)), default=0)

    def _row(self, row_id: int, request: GenerationRequest) -> _Row:
        has_bos = self._model.bos_id is not None and request.prompt[0] == self._model.bos_id
        protected = request.protected | {0} if has_bos else request.protected
        changes = RowChanges(request.changes, len(request.prompt), protected)
        return _Row(row_id, request, Draws(request.sampling, request.prompt), changes)

    def _decode(self) -> list[TokenEvent]:
        rows = list(self._running)
        lengths = [row.length for row in rows]
        self._cache.next_decode(lengths)
        plan = self._plan or EditPlan(self._model, [row.changes for row in rows])
        self._plan = plan
        tokens = torch.tensor([[row.draws.generated[-1]] for row in rows])
        positions = torch.tensor(lengths).unsqueeze(1)
        with plan.applied(Window(tuple(lengths), 1)):
            stream = self._forward(tokens, positions, self._masks.of_step(lengths))
        for row in rows:
            row.length += 1
            row.written = max(row.written, row.length)
        return self._emit(rows, self._logits(stream[:, -1]))

    def _is_prompts_turn(self) -> bool:
        if self._prompt_tokens == 0:
            return bool(self._waiting) or self._partial is not None
        if self._partial is not None or not self._waiting:
            return False
        return self._prompt_tokens + len(self._waiting[0].request.prompt) <= self._chunk

    def _prefill(self) -> list[TokenEvent]:
        """Compute short prompts together, or a piece of a long one; in turn if there are both."""
        has_short = bool(self._waiting) and len(self._waiting[0].request.prompt) <= self._chunk
        if self._partial is not None and not (has_short and self._short_prompts_turn):
            return self._prefill_piece(self._partial)
        if has_short:
            return self._prefill_together()
        if self._waiting:
            self._partial = self._waiting.popleft()
            return self._prefill_piece(self._partial)
        return []

    def _prefill_together(self) -> list[TokenEvent]:
        self._short_prompts_turn = False
        rows: list[_Row] = []
        width = 0
        room = self._chunk - self._prompt_tokens
        while self._waiting:
            width = max(width, len(self._waiting[0].request.prompt))
            if rows and width * (len(rows) + 1) > room:
                break
            rows.append(self._waiting.popleft())
        first = len(self._running)
        self._reserve(rows)
        if self._partial is not None:  # its place is behind the running rows
            self._move(self._partial, first, first + len(rows))
        last = self._run_prompts(rows, first_slot=first)
        self._running.extend(rows)
        self._plan = None
        return self._emit(rows, self._logits(last))

    def _prefill_piece(self, row: _Row) -> list[TokenEvent]:
        self._short_prompts_turn = True
        self._reserve([])
        last = self._run_prompts([row], first_slot=len(self._running))
        if row.length < len(row.request.prompt):
            return []
        self._partial = None
        self._running.append(row)
        self._plan = None
        return self._emit([row], self._logits(last))

    def _run_prompts(self, rows: Sequence[_Row], *, first_slot: int) -> Float[Tensor, "rows d_model"]:
        """Run the next piece of each prompt, padded on the right; return the last token's stream."""
        offset = rows[0].length
        pieces = [row.request.prompt[offset : offset + self._chunk] for row in rows]
        width = max(map(len, pieces))
        tokens = torch.tensor([[*piece, *([0] * (width - len(piece)))] for piece in pieces])
        positions = torch.arange(offset, offset + width).expand(len(rows), -1)
        ends = tuple(offset + len(piece) for piece in pieces)
        self._prompt_tokens += tokens.numel()
        self._cache.next_prompt(first_slot, len(rows), offset)
        plan = EditPlan(self._model, [row.changes for row in rows])
        with plan.applied(Window((offset,) * len(rows), width, ends)):
            stream = self._forward(tokens, positions, None)
        for row, end in zip(rows, ends, strict=True):
            row.length, row.written = end, offset + width
        last = torch.tensor([len(piece) - 1 for piece in pieces], device=stream.device)
        return stream[torch.arange(len(rows), device=stream.device), last]

    def _forward(
        self, tokens: Int[Tensor, "rows n"], positions: Int[Tensor, "rows n"], mask: Mask
    ) -> Float[Tensor, "rows n d_model"]:
        body: Any = self._model.hf.base_model
        device = self._model.device
        output: Any = body(
            input_ids=tokens.to(device),
            position_ids=positions.to(device),
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        stream: Tensor = output.last_hidden_state
        return stream

    def _logits(self, stream: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_vocab"]:
        head: Any = self._model.hf.get_output_embeddings()
        weight: Tensor = head.weight
        is_slow = stream.device.type == "cpu" and len(stream) in _SLOW_PRODUCTS
        if is_slow and weight.dtype == torch.float32 and head.bias is None:
            logits = (weight @ stream.T).T.contiguous()
        else:
            logits = head(stream)
        cap: float | None = getattr(self._model.hf.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _emit(self, rows: Sequence[_Row], logits: Float[Tensor, "rows d_vocab"]) -> list[TokenEvent]:
        choices = choose(logits, [row.draws for row in rows])
        events = [self._event(row, choice) for row, choice in zip(rows, choices, strict=True)]
        for row, event in zip(rows, events, strict=True):
            if event.finish is not None:
                self._leave(row)
        return events

    def _event(self, row: _Row, choice: Choice | None) -> TokenEvent:
        if choice is None:
            return TokenEvent(
                row.id, None, 0.0, finish="error", error=EngineError("interventions", _NOT_FINITE)
            )
        row.draws.generated.append(choice.token)
        finish: FinishReason | None = None
        if choice.token in row.request.eos_ids:
            finish = "end_token"
        elif len(row.draws.generated) >= row.request.max_new_tokens:
            finish = "length"
        return TokenEvent(row.id, choice.token, choice.logprob, choice.top, finish)

    def _leave(self, row: _Row) -> None:
        """Take a running row out; the last one takes its slot."""
        slot, last = self._running.index(row), len(self._running) - 1
        with torch.inference_mode():
            self._forget(slot, row)
            mover = self._running.pop()
            if slot < last:
                self._running[slot] = mover
                self._move(mover, last, slot)
            if self._partial is not None:
                self._move(self._partial, last + 1, last)
        self._plan = None

    def _move(self, row: _Row, source: int, target: int) -> None:
        self._cache.copy(source, target, row.length)
        self._forget(source, row)

    def _forget(self, slot: int, row: _Row) -> None:
        """Leave nothing in a slot that may not be finite: masked or not, it would spoil a later row."""
        if row.request.changes:
            self._cache.erase(slot, row.written)

    def _reserve(self, joining: Sequence[_Row]) -> None:
        """Make room for the rows that have a slot and those that get one now."""
        placed = [*self._running, *([self._partial] if self._partial else [])]
        longest = self._longest_of([row.request for row in joining])
        stored = [row.length for row in placed if row.length]
        self._cache.reserve(len(placed) + len(joining), longest, stored)
