"""Long computations of the engine, advanced a step at a time between other work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from inspect import isgenerator
from typing import Any, cast

import torch

from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.compute.reader import as_problem

Steps = Generator[Any, None, Any]


@dataclass(eq=False)
class Call:
    """A function that is called on the compute thread; when that gives a generator, it is run to its end."""

    function: Callable[[], Any]
    ticket: Ticket
    deliver: Callable[[Any], None]
    """Takes the result, or the exception."""
    progress: Callable[[Any], None] | None = None
    """Takes what the generator yields, on the event loop."""
    is_background: bool = False
    steps: Steps | None = None


class LeftSomethingBehind(Exception):
    """A step ended with a mode of torch switched or hooks on the model: others would compute wrongly."""


class Calling:
    """Takes turns among the calls of one kind. The compute thread's own."""

    def __init__(self, count_hooks: Callable[[], int]) -> None:
        self._calls: deque[Call] = deque()
        self._count_hooks = count_hooks

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """Queue a call."""
        self._calls.append(call)

    def turn(self, tell: Callable[[Callable[[], None]], None]) -> list[Ticket]:
        """Advance the call that waited longest by one step.

        Args:
            tell: Takes what is to be called on the event loop.
        """
        if not self._calls:
            return []
        call = self._calls.popleft()
        if call.ticket.is_over:
            _close(call)
            return []
        try:
            said = self._advance(call)
        except StopIteration as end:
            call.deliver(end.value)
        except Exception as error:  # noqa: BLE001 (whatever breaks in one call is told to its caller)
            _close(call)
            call.deliver(as_problem(error, "call"))
        else:
            if call.progress is not None and said is not None:
                progress = call.progress
                tell(lambda: progress(said))
            self._calls.append(call)
        return [call.ticket]

    def clear(self) -> list[Call]:
        """Drop all calls and return them."""
        calls, self._calls = list(self._calls), deque()
        for call in calls:
            _close(call)
        return calls

    def _advance(self, call: Call) -> Any:
        """One step; raises StopIteration with the result at the end."""
        hooks = self._count_hooks()
        try:
            if call.steps is not None:
                return next(call.steps)
            result = call.function()
            if not isgenerator(result):
                raise StopIteration(result)
            call.steps = cast("Steps", result)
            return None
        finally:
            self._check_left(hooks)

    def _check_left(self, hooks: int) -> None:
        is_switched = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        torch.set_grad_enabled(False)
        if is_switched:
            raise LeftSomethingBehind("grad mode or inference mode is switched at a yield")
        if self._count_hooks() != hooks:
            raise LeftSomethingBehind("hooks are on the model at a yield")


def _close(call: Call) -> None:
    if call.steps is not None:
        call.steps.close()
        call.steps = None
        torch.set_grad_enabled(False)
