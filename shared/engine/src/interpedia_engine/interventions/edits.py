"""Making the changes of all rows of a batch in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from interpedia_engine.errors import EngineError
from interpedia_engine.hooks import Hook
from interpedia_engine.interventions.changes import Positions, RowChanges, check_change
from interpedia_engine.interventions.steps import Step, make_round, steps_of
from interpedia_engine.interventions.window import Window
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.sites import site

_Chosen = tuple[Tensor, Tensor, Tensor]
"""Row, column and pattern of the tokens that a round changes."""


class EditPlan:
    """The changes of a batch's rows, prepared once and applied in many forward passes."""

    def __init__(self, model: LanguageModel, rows: Sequence[RowChanges]) -> None:
        """Prepare; row r of the batch gets `rows[r]`.

        Raises:
            OutOfRange, WidthMismatch, UnsupportedHook: see `check_change`.
        """
        self._model = model
        for row in rows:
            for change in row.changes:
                check_change(change, model)
        self._rounds = _rounds_by_hook(rows)

    @contextmanager
    def applied(self, window: Window) -> Generator[None]:
        """Make the changes in the forward passes inside the block, all of which cover `window`."""
        seen: dict[Hook, Tensor] = {}
        architecture = self._model.shape.architecture
        chosen = {
            hook: [(one, tokens) for one in rounds if (tokens := one.choose(window)) is not None]
            for hook, rounds in self._rounds.items()
        }
        with ExitStack() as stack:
            for hook, rounds in chosen.items():
                if rounds:
                    handle = site(self._model.hf, hook, architecture=architecture).edit(_edit(rounds, seen))
                    stack.callback(handle.remove)
            # After the edits, so that a hook that is both edited and read is read as edited.
            for hook in {one.reads for rounds in chosen.values() for one, _ in rounds if one.reads}:
                handle = site(self._model.hf, hook, architecture=architecture).observe(_keep(hook, seen))
                stack.callback(handle.remove)
            yield


@contextmanager
def edited(model: LanguageModel, rows: Sequence[RowChanges], window: Window) -> Generator[None]:
    """Make each row's changes in the forward passes inside the block, all of which cover `window`.

    Rows without changes, and positions without, keep every bit. The cost grows with what is asked for: only
    the tokens concerned are read, `add` reads nothing.

    Raises:
        OutOfRange, WidthMismatch, UnsupportedHook: see `check_change`.
    """
    with EditPlan(model, rows).applied(window):
        yield


class _PlacedRound:
    """A round, and the rows that its steps belong to."""

    def __init__(self, steps: Sequence[tuple[int, RowChanges, Step]]) -> None:
        self._round = make_round([step for _, _, step in steps])
        self._steps = steps
        self._patterns: dict[tuple[int, tuple[bool, ...]], int] = {}
        self._last: tuple[tuple[tuple[int, int, int], ...], _Chosen] | None = None
        self.reads = self._round.reads

    def choose(self, window: Window) -> _Chosen | None:
        """Return the tokens of the window that are changed, None where there are none."""
        found: list[tuple[int, int, int]] = []
        for number, (row, about, step) in enumerate(self._steps):
            parts = step.positions_of_parts
            for column in range(window.width):
                position = window.position(row, column)
                if position is None:
                    continue
                acts = tuple(_reaches(part, position, about) for part in parts)
                if any(acts):
                    found.append((row, column, self._pattern(number, acts)))
        if not found:
            return None
        key = tuple(found)
        if self._last is None or self._last[0] != key:  # the same at every step of a generation
            rows, columns, patterns = torch.tensor(found, dtype=torch.int64).unbind(dim=1)
            self._last = key, (rows.contiguous(), columns.contiguous(), patterns.contiguous())
        return self._last[1]

    def apply(self, out: Float[Tensor, "batch pos d"], tokens: _Chosen, seen: dict[Hook, Tensor]) -> None:
        """Change the chosen tokens of `out` in place."""
        rows, columns, patterns = (index.to(out.device) for index in tokens)
        stream = out[rows, columns]
        read = stream
        if self.reads is not None:
            if self.reads not in seen:
                raise EngineError("hook", f"{self.reads.name} is read after it would be needed")
            source = seen[self.reads]
            read = source[rows.to(source.device), columns.to(source.device)]
        delta = self._round.delta(stream, read, patterns)
        wide = torch.promote_types(stream.dtype, delta.dtype)
        out[rows, columns] = (stream.to(wide) + delta.to(wide)).to(out.dtype)

    def _pattern(self, step: int, acts: tuple[bool, ...]) -> int:
        key = step, acts
        if key not in self._patterns:
            self._round.add_pattern(step, acts)
            self._patterns[key] = len(self._patterns)
        return self._patterns[key]


def _rounds_by_hook(rows: Sequence[RowChanges]) -> dict[Hook, list[_PlacedRound]]:
    """Let rows take steps of the same kind together, each keeping its own order."""
    waiting: dict[Hook, list[tuple[int, RowChanges, list[Step]]]] = {}
    for number, row in enumerate(rows):
        for hook, steps in steps_of(row.changes).items():
            waiting.setdefault(hook, []).append((number, row, steps))
    rounds: dict[Hook, list[_PlacedRound]] = {}
    for hook, queues in waiting.items():
        while any(queue for _, _, queue in queues):
            kind = next(queue[0].kind for _, _, queue in queues if queue)
            taken = [
                (number, row, queue.pop(0))
                for number, row, queue in queues
                if queue and queue[0].kind == kind
            ]
            rounds.setdefault(hook, []).append(_PlacedRound(taken))
    return rounds


def _reaches(positions: Positions, position: int, row: RowChanges) -> bool:
    if isinstance(positions, frozenset):
        return position in positions
    if position in row.protected:
        return False
    is_generated = row.prompt_length is not None and position >= row.prompt_length
    return positions == "all" or is_generated == (positions == "generated")


def _edit(
    rounds: Sequence[tuple[_PlacedRound, _Chosen]], seen: dict[Hook, Tensor]
) -> Callable[[Tensor], Tensor]:
    def change(stream: Tensor) -> Tensor:
        out = stream.clone()
        for one, tokens in rounds:
            one.apply(out, tokens, seen)
        return out

    return change


def _keep(hook: Hook, seen: dict[Hook, Tensor]) -> Callable[[Tensor], None]:
    def keep(stream: Tensor) -> None:
        seen[hook] = stream

    return keep
