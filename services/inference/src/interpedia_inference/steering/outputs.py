"""One output of a steering request, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from interpedia_engine.generation import StreamedText, TokenEvent
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.steering import (
    Generation,
    OutputName,
    SteerRequest,
    StreamedToken,
    TokenProbability,
)
from interpedia_shared.problems import Invalid

FinishReason = Literal["length", "end_token", "stop"]


class Output:
    """Gathers what one row of the decoder generates.

    The end token and the tokens of a stop string are among the tokens, with their log-probabilities; the text
    goes without them.
    """

    def __init__(self, name: OutputName, visit: Visit, body: SteerRequest) -> None:
        self.name: OutputName = name
        self._finish_reason: FinishReason | None = None
        self._visit = visit
        self._has_top = body.n_logprobs > 0
        self._text = StreamedText(visit.model.vocabulary, stops=body.stop, hidden_ids=visit.model.eos_ids)
        self._pieces: list[str] = []
        self._tokens: list[StreamedToken] = []

    @property
    def is_finished(self) -> bool:
        """Whether nothing more comes."""
        return self._finish_reason is not None

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string ended it, of which the decoder does not know."""
        return self._finish_reason == "stop"

    def add(self, event: TokenEvent) -> StreamedToken:
        """Take the row's next token and return what a reader of the stream gets.

        Raises:
            Invalid: the row failed, e.g. of an intervention so strong that no logit is finite.
        """
        if event.finish == "error" or event.token_id is None:
            detail = "no token can be drawn" if event.error is None else event.error.detail
            raise Invalid.field("#/interventions", f"{self.name}, token {len(self._tokens)}: {detail}")
        piece = self._text.push(event.token_id)
        if self._text.is_stopped:
            self._finish_reason = "stop"
        elif event.finish is not None:
            self._finish_reason = event.finish
            piece += self._text.finish()
        token = StreamedToken(
            output=self.name,
            position=len(self._tokens),
            text=piece,
            token_id=event.token_id,
            token=self._visit.strings([event.token_id])[0],
            logprob=event.logprob,
            top=self._probabilities(event.top) if self._has_top else None,
        )
        self._pieces.append(piece)
        self._tokens.append(token)
        return token

    def generation(self) -> Generation:
        """The whole output, once it is finished."""
        assert self._finish_reason is not None
        return Generation(
            text="".join(self._pieces),
            tokens=[token.token for token in self._tokens],
            token_ids=[token.token_id for token in self._tokens],
            logprobs=[token.logprob for token in self._tokens],
            top_logprobs=[token.top or [] for token in self._tokens] if self._has_top else None,
            finish_reason=self._finish_reason,
        )

    def _probabilities(self, top: Sequence[tuple[int, float]]) -> list[TokenProbability]:
        names = self._visit.strings([token_id for token_id, _ in top])
        return [
            TokenProbability(token_id=token_id, token=name, logprob=logprob)
            for (token_id, logprob), name in zip(top, names, strict=True)
        ]
