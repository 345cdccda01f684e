"""One steering request: its prompt, its rows in the shared batch, its outputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from interpedia_engine.generation import GenerationRequest, Sampling
from interpedia_engine.interventions import Change
from interpedia_inference.admission.cost import generation_cost
from interpedia_inference.compute.stream import GenerationStream
from interpedia_inference.refusals import over_limit
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.steering.changes import resolve_changes
from interpedia_inference.steering.outputs import Output
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.steering import SteerOut, SteerRequest, StreamedToken, StreamStart


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """The prompt as the model sees it."""

    ids: list[int]
    protected: frozenset[int]
    """Special tokens of a chat that interventions leave alone."""
    has_bos: bool


class SteeringRun:
    """Default and steered side by side, as rows of one batch from one seed."""

    def __init__(self, visit: Visit, body: SteerRequest) -> None:
        self._visit = visit
        self._body = body
        self._outputs = [Output(name, visit, body) for name in body.outputs]
        self._saes: list[HeldSAE] = []
        self._prompt = Prompt([], frozenset(), has_bos=False)
        self._stream: GenerationStream | None = None

    async def prepare(self) -> None:
        """Check all that can be checked before the first token, and queue for it.

        Raises:
            Invalid: names the field and the fact.
            EngineError: the outputs could never run here.
            Problem: see `Visit`.
        """
        visit, body = self._visit, self._body
        limit = visit.settings.max_new_tokens
        if body.max_new_tokens > limit:
            raise over_limit("#/max_new_tokens", "the number", limit=limit, value=body.max_new_tokens)
        self._prompt = await read_prompt(visit, body)
        n_prompt = len(self._prompt.ids)
        n_positions = n_prompt + body.max_new_tokens
        if n_positions > visit.model.max_positions:
            raise over_limit(
                "#/max_new_tokens",
                f"prompt ({n_prompt} tokens) + max_new_tokens",
                limit=visit.model.max_positions,
                value=n_positions,
            )
        held = await visit.borrow(body.saes_named())
        visit.check_features(held, body.features_named())
        self._saes = list(held.values())
        changes = await resolve_changes(visit, body.interventions, held, n_positions=n_positions)
        visit.charge(
            generation_cost(
                visit.model,
                prompt_tokens=n_prompt,
                new_tokens=body.max_new_tokens,
                rows=len(self._outputs),
            )
        )
        requests = [self._request(changes if output.name == "steered" else ()) for output in self._outputs]
        self._stream = visit.generate(requests)

    def start(self) -> StreamStart:
        """What a reader of the stream gets first."""
        return StreamStart(
            prompt_tokens=self._visit.strings(self._prompt.ids),
            prompt_token_ids=self._prompt.ids,
            outputs=self._body.outputs,
            provenance=self._visit.provenance(bos=self._prompt.has_bos, saes=self._saes),
        )

    async def tokens(self) -> AsyncGenerator[StreamedToken]:
        """Generate; closing the generator frees the rows within a token.

        Raises:
            Problem: a row failed, the deadline passed, the caller hung up.
        """
        assert self._stream is not None, "prepare comes first"
        async with self._stream as stream:
            async for events in stream:
                for index, event in events:
                    output = self._outputs[index]
                    if output.is_finished:
                        continue  # drawn before its row was dropped
                    yield output.add(event)
                    if output.is_stopped:
                        stream.drop(index)

    def answer(self) -> SteerOut:
        """The whole answer, once all tokens were read."""
        outputs = {output.name: output.generation() for output in self._outputs}
        start = self.start()
        return SteerOut(
            prompt_tokens=start.prompt_tokens,
            prompt_token_ids=start.prompt_token_ids,
            default=outputs.get("default"),
            steered=outputs.get("steered"),
            timings=self._visit.timings(),
            provenance=start.provenance,
        )

    def _request(self, changes: tuple[Change, ...]) -> GenerationRequest:
        body = self._body
        return GenerationRequest(
            tuple(self._prompt.ids),
            body.max_new_tokens,
            changes=changes,
            sampling=Sampling(
                temperature=body.temperature,
                top_k=body.top_k,
                top_p=body.top_p,
                min_p=body.min_p,
                frequency_penalty=body.frequency_penalty,
                presence_penalty=body.presence_penalty,
                repetition_penalty=body.repetition_penalty,
                seed=body.seed,
                n_logprobs=body.n_logprobs,
            ),
            eos_ids=self._visit.model.eos_ids,
            protected=self._prompt.protected,
        )


async def read_prompt(visit: Visit, body: SteerRequest) -> Prompt:
    """Turn prompt or chat into tokens.

    Raises:
        TooLong: more tokens than a text may have.
        Invalid: the model has no chat template, or its template refuses these messages.
    """
    if body.messages is None:
        tokens = await visit.tokenize(body.prompt or "", prepend_bos=body.prepend_bos, field="#/prompt")
        return Prompt(tokens.ids, frozenset(), tokens.has_bos)
    chat = await visit.tokenize_chat(body.messages, field="#/messages")
    protected = chat.special_positions if body.skip_special_tokens else frozenset[int]()
    return Prompt(list(chat.ids), protected, has_bos=visit.has_bos(chat.ids))
