"""What a red-team may cost: the same questions, with stand-ins for texts that are yet to be written."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from interpedia_autointerp.explainers import MAX_TEXT, Hypothesis
from interpedia_autointerp.explainers.prompts import HYPOTHESIS
from interpedia_autointerp.llm import AnyRequest, Caller, LLMRequest, Message, Sampling
from interpedia_autointerp.material.text import as_data
from interpedia_autointerp.orders.estimating import TYPICAL, Size, amounts
from interpedia_autointerp.redteam.attacks import MAX_CHARACTERS, Attacker
from interpedia_autointerp.redteam.attempt import LLM, Attempt
from interpedia_autointerp.redteam.prompts import REVISE
from interpedia_autointerp.scorers import LLMAsk
from interpedia_shared.contracts.autointerp import EstimateOut, RedTeamRequest

_TEXT, _LARGEST = "They met beside the river and talked about the summer. " * 2, "\U00010348"
_WORDS = ["stand-in"] * 12
_SHOWN = 24


def estimate_redteam(caller: Caller, request: RedTeamRequest, text: str) -> EstimateOut:
    """From the hypothesis and the caller's own texts; nothing is called.

    Raises:
        EndpointNotFound: the settings have none of this name.
    """
    low = caller.estimate(_requests(caller, request, text, "likely"))
    high = caller.estimate(_requests(caller, request, text, "largest"))
    whole = amounts(low, high)
    return EstimateOut(features=1, sampled=1, without_material=0, total=whole, per_feature=whole)


def _requests(caller: Caller, request: RedTeamRequest, text: str, size: Size) -> Iterable[AnyRequest]:
    if request.endpoint is None:
        return
    nobody = uuid.UUID(int=0)
    attacker = Attacker(caller, request.endpoint, nobody, nobody, request.seed, request.repeat)
    one = _TEXT if size == "likely" else _LARGEST * MAX_CHARACTERS
    revised = TYPICAL if size == "likely" else Hypothesis(_LARGEST * MAX_TEXT)
    used = [each.text for each in request.texts]
    for number in range(request.rounds):
        hypothesis = Hypothesis(text) if number == 0 else revised
        yield from attacker.requests(hypothesis, count=request.per_kind, words=_WORDS, used=used)
        # three kinds, and two texts of each pair
        written = [Attempt(one, "should_fire", "varied", LLM)] * (5 * request.per_kind)
        asks: list[LLMAsk] = attacker.checks(hypothesis, written)
        yield from (ask.request for ask in asks)
        shown = [*(used if number == 0 else ()), *(each.text for each in written)][:_SHOWN]
        if number + 1 < request.rounds:
            yield _revision(attacker, hypothesis, shown)
        used += [each.text for each in written]


def _revision(attacker: Attacker, hypothesis: Hypothesis, shown: list[str]) -> LLMRequest:
    tested = [{"text": text, "expected": "active", "strength": 0.25, "token": "stand-in"} for text in shown]
    return LLMRequest(
        (
            Message("system", REVISE.system),
            Message("user", as_data({"claim": hypothesis.text, "tested": tested})),
        ),
        endpoint=attacker.endpoint,
        output=HYPOTHESIS,
        sampling=Sampling(1000, seed=attacker.seed),
        allow_repair=True,
    )
