"""The rules of ordering a red-team."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interpedia_autointerp.embed import KIND as EMBED
from interpedia_autointerp.methods.choices import check_endpoint, prompt_id
from interpedia_autointerp.orders.making import QUEUE, Order, RunPlan, place
from interpedia_autointerp.redteam import repository
from interpedia_autointerp.redteam.estimating import estimate_redteam
from interpedia_autointerp.redteam.prompts import PAIRS, PARAPHRASE, REVISE, TRAP, VARIED
from interpedia_autointerp.targets.repository import visible_sae
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.autointerp import RedTeamRequest, WorkAccepted
from interpedia_shared.db.models import SAE
from interpedia_shared.db.session import ReadSession, WriteSession
from interpedia_shared.explanations import HUMAN, NewExplanation, add_explanations, clean_text
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.ids import FeatureRef
from interpedia_shared.jobs import TaskSpec
from interpedia_shared.problems import FeatureNotFound, Invalid, NotFound

KIND = "redteam"
VERSION = "1"


@dataclass(frozen=True)
class Subject:
    """What is put to the test; without an id the text is stored with the job."""

    sae: SAE
    feature: FeatureRef
    explanation_id: int | None
    text: str


class RedTeamService:
    """Takes orders; a worker attacks."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def attack(self, caller: Caller, request: RedTeamRequest, once: Once) -> Answer:
        """Start a job: 202; or estimate it: 200.

        Raises:
            Problem: the explanation, feature or endpoint is not there, or cannot do this.
        """
        kept = await once.replay(self._workshop.database)
        if kept is not None:
            return kept
        async with self._workshop.database.read() as session:
            subject = await _subject(session, caller, request)
        if request.dry_run:
            found = estimate_redteam(self._workshop.caller, request, subject.text)
            return Answer.of(200, WorkAccepted(estimate=found))
        if request.endpoint is not None:
            await check_endpoint(self._workshop.caller, request.endpoint, [(KIND, ("chat",))], request.budget)

        async def order(session: WriteSession) -> Order:
            explanation_id = subject.explanation_id
            if explanation_id is None:
                own = NewExplanation(subject.feature.index, subject.text, HUMAN, caller.account_id)
                explanation_id = (await add_explanations(session, subject.sae.id, [own]))[0]
            return _order(caller, request, subject, explanation_id)

        return await place(self._workshop.database, caller, once, order)


async def _subject(session: ReadSession, caller: Caller, request: RedTeamRequest) -> Subject:
    if request.explanation is None:
        assert request.feature is not None
        assert request.hypothesis is not None
        try:
            text = clean_text(request.hypothesis)
        except ValueError as error:
            raise Invalid.field("#/hypothesis", str(error)) from error
        feature = FeatureRef.parse(request.feature)
        sae = await visible_sae(session, feature.model, feature.sae, caller)
        if not 0 <= feature.index < sae.d_sae:
            raise FeatureNotFound(feature.model, feature.sae, feature.index, sae.d_sae)
        return Subject(sae, feature, None, text)
    row = await repository.find(session, request.explanation)
    sae = None if row is None else await session.get(SAE, row.sae_id)
    if row is None or sae is None:
        raise NotFound(f"No explanation {request.explanation} here.")
    sae = await visible_sae(session, sae.model_id, sae.slug, caller)
    return Subject(sae, FeatureRef(sae.model_id, sae.slug, row.feature_idx), row.id, row.text)


def _order(caller: Caller, request: RedTeamRequest, subject: Subject, explanation_id: int) -> Order:
    params = {
        "sae_id": subject.sae.id,
        "version_id": subject.sae.current_version_id,
        "feature": str(subject.feature),
        "explanation": explanation_id,
    }
    prompts = [prompt_id(each) for each in (VARIED, PARAPHRASE, TRAP, PAIRS, REVISE)]
    provenance = {
        "prompts": prompts if request.endpoint else [],
        "endpoint": request.endpoint,
        "seed": request.seed,
        "repeat": request.repeat,
    }

    def tasks(runs: Mapping[str, str]) -> list[TaskSpec]:
        embed = {"first": explanation_id, "last": explanation_id, "run_ids": []}
        attack = TaskSpec(KIND, 0, 0, params, request.rounds, queue=QUEUE)
        made = TaskSpec(EMBED, 1, 1, {"run_ids": list(runs.values())}, queue=QUEUE)
        return [attack, TaskSpec(EMBED, 1, 0, embed, queue=QUEUE), made]

    return Order(
        kind=KIND,
        params={"account_id": caller.account_id, "request": request.model_dump(mode="json")},
        stages=["redteam", "embed"],
        runs=[RunPlan(KIND, KIND, VERSION, {"rounds": request.rounds}, provenance)],
        tasks=tasks,
        budget=request.budget,
        is_private=subject.sae.visibility == "private",
    )
