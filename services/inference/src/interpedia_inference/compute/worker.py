"""The thread that owns torch: it takes work from all callers and interleaves it by the time it has had."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import torch

from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.threads import configure_threads
from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.compute.calling import Call, Calling
from interpedia_inference.compute.delivery import Delivery
from interpedia_inference.compute.generating import Generating, Group
from interpedia_inference.compute.kept import KeptActivations
from interpedia_inference.compute.reader import Reader
from interpedia_inference.compute.reads import ReadEntry, ReadQueue
from interpedia_inference.metrics import SLICES
from interpedia_inference.settings import InferenceSettings
from interpedia_shared.problems import InternalError, Problem, Unavailable

log = structlog.get_logger(__name__)

_WEIGHTS = {"read": 1.0, "generate": 1.0, "call": 1.0, "background": 0.25}
"""Shares of the thread's time among kinds that have work."""
_SHARED_FRACTION = 4
"""A forward pass for reading is cut to this fraction of its size while rows are being generated."""


class ComputeThread:
    """Runs slices of work until stopped. `submit` may be called on any thread; the rest is the thread's own.

    Args:
        model: What it computes with.
        settings: Sizes of batches, threads.
        delivery: Where results go.
    """

    def __init__(self, model: LanguageModel, settings: InferenceSettings, *, delivery: Delivery) -> None:
        self._settings = settings
        self._delivery = delivery
        self._modules: list[Any] = list(model.hf.modules())
        self._reads = ReadQueue(settings.batch_overhead_tokens)
        self._reader = Reader(model, KeptActivations(settings.activation_cache_bytes))
        self.generating = Generating(model, settings)
        self._calls = Calling(self._count_hooks)
        self._background = Calling(self._count_hooks)
        self._had = dict.fromkeys(_WEIGHTS, 0.0)
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the slice in hand; what waits is told that the host stops."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, command: Callable[[], None]) -> None:
        """Have `command` called on the thread, between two slices."""
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    def add_read(self, entry: ReadEntry) -> None:
        """A command: queue a text."""
        self._reads.add(entry)

    def add_group(self, group: Group) -> None:
        """A command: queue outputs to generate."""
        self.generating.add(group)

    def add_call(self, call: Call) -> None:
        """A command: queue a call."""
        (self._background if call.is_background else self._calls).add(call)

    def _run(self) -> None:
        configure_threads(self._settings.torch_threads)
        torch.set_grad_enabled(False)
        while self._receive():
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 (a fault of ours fails who waits, never the thread)
                self._recover(error)
            self._delivery.flush()
        self._abandon(Unavailable("This host is shutting down.", retry_after_s=2))
        self._delivery.flush()

    def _recover(self, error: Exception) -> None:
        log.error("compute_thread_failed", exc_info=error)
        self._abandon(InternalError())

    def _receive(self) -> bool:
        """Take what was submitted, waiting while there is nothing to do. False when it is time to stop."""
        with self._wake:
            pause = self._pause()
            if pause != 0.0 and not self._inbox and not self._is_stopping:
                self._wake.wait(pause)
            commands, self._inbox = self._inbox, deque()
            is_stopping = self._is_stopping
        for command in commands:
            command()
        return not is_stopping

    def _work(self) -> None:
        """One slice, unless it pays to wait a moment for more."""
        if self._pause() == 0.0:
            for kind in self._in_turn():
                if self._slice(kind):
                    break

    def _pause(self) -> float | None:
        """Seconds to wait for more work: 0 when there is some to begin, None for as long as it takes."""
        if len(self.generating) or len(self._calls) or len(self._background):
            return 0.0
        if len(self._reads):
            return max(0.0, self._reads.wait_until() - time.perf_counter())
        return None

    def _lengths(self) -> dict[str, int]:
        return {
            "read": len(self._reads),
            "generate": len(self.generating),
            "call": len(self._calls),
            "background": len(self._background),
        }

    def _in_turn(self) -> list[str]:
        """Kinds that have work, the one that had least of its share first."""
        lengths = self._lengths()
        waiting = [kind for kind, length in lengths.items() if length]
        if not waiting:
            return []
        # Who had no work for a while has no claim on the time that went by.
        least = min(self._had[kind] for kind in waiting)
        for kind in lengths:
            if not lengths[kind]:
                self._had[kind] = max(self._had[kind], least)
        return sorted(waiting, key=lambda kind: self._had[kind])

    def _slice(self, kind: str) -> bool:
        started = time.perf_counter()
        tickets = self._turn(kind)
        finished = time.perf_counter()
        for ticket in tickets:
            ticket.mark_slice(started, finished)
        self._had[kind] += (finished - started) / _WEIGHTS[kind]
        if tickets:
            SLICES.labels(kind).observe(finished - started)
        return bool(tickets)

    def _turn(self, kind: str) -> Sequence[Ticket]:
        if kind == "read":
            return self._read()
        if kind == "generate":
            return self.generating.turn()
        return (self._background if kind == "background" else self._calls).turn(self._delivery.put)

    def _read(self) -> list[Ticket]:
        is_shared = bool(len(self.generating))
        limit = self._settings.max_batch_tokens // (_SHARED_FRACTION if is_shared else 1)
        started = time.perf_counter()
        batch = self._reads.take(limit)
        if not batch:
            return []
        for entry in batch:
            entry.ticket.tokens_run += len(entry.ids)
        self._reader.run(batch)
        finished = time.perf_counter()
        self._reads.served(batch, now=finished, seconds=finished - started)
        return list({id(entry.ticket): entry.ticket for entry in batch}.values())

    def _count_hooks(self) -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in self._modules)

    def _abandon(self, problem: Problem) -> None:
        """Tell everybody who waits that it comes to nothing."""
        while self._inbox:
            self._inbox.popleft()()
        for entry in self._reads.clear():
            entry.deliver(problem)
        for group in self.generating.clear():
            group.deliver(problem)
        for call in [*self._calls.clear(), *self._background.clear()]:
            call.deliver(problem)
