"""Where every live request comes in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from fastapi import Request

from interpedia_engine.errors import EngineError
from interpedia_engine.models.language_model import LanguageModel
from interpedia_inference.admission import Admission
from interpedia_inference.admission.hangup import watched
from interpedia_inference.compute.compute import Compute
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.model import ModelHost
from interpedia_inference.shelf.saes import SAEShelf
from interpedia_inference.stored import StoredNumbers
from interpedia_inference.visits.visit import Equipment, Visit
from interpedia_shared.contracts.live.requests import ModelRequest
from interpedia_shared.problem_handlers import problem_responses
from interpedia_shared.problems import (
    BadSAE,
    Busy,
    DeadlineExceeded,
    FeatureNotFound,
    HostNotReady,
    Invalid,
    SAENotFound,
    TooLarge,
    TooLong,
    Unavailable,
    WrongHost,
)
from interpedia_shared.tokens import Vocabulary

LIVE_PROBLEMS = problem_responses(
    SAENotFound,
    FeatureNotFound,
    TooLarge,
    WrongHost,
    Invalid,
    TooLong,
    BadSAE,
    Busy,
    Unavailable,
    HostNotReady,
    DeadlineExceeded,
)
"""`responses=` of every live route."""


class Reception:
    """Opens a visit for each request.

    Args:
        host: The model.
        admission: Who is let in.
        compute: The thread that owns torch.
        shelf: SAEs.
        stored: Numbers of the dashboards' builds.
        settings: Limits.
    """

    def __init__(
        self,
        host: ModelHost,
        admission: Admission,
        *,
        compute: Compute,
        shelf: SAEShelf,
        stored: StoredNumbers,
        settings: InferenceSettings,
    ) -> None:
        self.host = host
        self.admission = admission
        self.compute = compute
        self.shelf = shelf
        self.stored = stored
        self.settings = settings
        self._vocabulary: tuple[LanguageModel, Vocabulary] | None = None

    @asynccontextmanager
    async def visit(self, request: Request, body: ModelRequest) -> AsyncGenerator[Visit]:
        """Let a request in; its deadline and its caller are watched until the block ends.

        An `EngineError` that leaves the block is answered as a fault of the request.

        Raises:
            WrongHost, HostNotReady, Busy: it is not let in.
            Problem: whatever the block raises.
        """
        model = self.host.require(body.model)
        ticket = self.admission.enter(_route(request), body.deadline_s)
        async with AsyncExitStack() as stack:
            stack.callback(self.admission.leave, ticket)
            await stack.enter_async_context(watched(request, ticket))
            visit = Visit(model, ticket, self._equipment(model), stack, model_id=body.model)
            with engine_errors():
                yield visit

    @asynccontextmanager
    async def background(self, model_id: str, *, route: str) -> AsyncGenerator[Visit]:
        """The same for a job's work: no deadline; end it by `visit.ticket.end(problem)`.

        Raises:
            WrongHost, HostNotReady: the model is not served here, or not yet.
        """
        model = self.host.require(model_id)
        ticket = self.admission.enter_background(route)
        async with AsyncExitStack() as stack:
            stack.callback(self.admission.leave, ticket)
            visit = Visit(model, ticket, self._equipment(model), stack, model_id=model_id)
            with engine_errors():
                yield visit

    def _equipment(self, model: LanguageModel) -> Equipment:
        if self._vocabulary is None or self._vocabulary[0] is not model:
            self._vocabulary = (model, Vocabulary(model.vocabulary.entries))
        return Equipment(
            settings=self.settings,
            admission=self.admission,
            compute=self.compute,
            shelf=self.shelf,
            stored=self.stored,
            vocabulary=self._vocabulary[1],
        )


@contextmanager
def engine_errors() -> Generator[None]:
    """Answer what the engine refuses as a fault of the request: 422 with the field.

    Raises:
        Invalid: an `EngineError` came out of the block.
    """
    try:
        yield
    except EngineError as error:
        raise refusal(error) from error


def refusal(error: EngineError) -> Invalid:
    """The engine's error as a problem: `metric.position` is `#/metric/position`."""
    return Invalid.field("#/" + error.field.replace(".", "/"), error.detail)


def _route(request: Request) -> str:
    path: str = getattr(request.scope.get("route"), "path", request.url.path)
    return path
