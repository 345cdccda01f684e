"""The task that puts one hypothesis to the test, revises it, and tests the revision on fresh texts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from interpedia_autointerp.explainers import Hypothesis
from interpedia_autointerp.explainers.prompts import HYPOTHESIS
from interpedia_autointerp.explainers.prose import BadHypothesis, read_hypothesis
from interpedia_autointerp.llm import LLMRequest, Message, Sampling
from interpedia_autointerp.material import Task
from interpedia_autointerp.material.cutting import grid
from interpedia_autointerp.material.repository import sample_passages
from interpedia_autointerp.material.text import as_data
from interpedia_autointerp.orders.ledger import Ledger
from interpedia_autointerp.orders.stopping import stoppable
from interpedia_autointerp.redteam import repository
from interpedia_autointerp.redteam.attacks import Attacker
from interpedia_autointerp.redteam.attempt import CORPUS, Attempt
from interpedia_autointerp.redteam.prompts import REVISE
from interpedia_autointerp.redteam.running import run as run_texts
from interpedia_autointerp.redteam.verdict import RedTeamVerdict, score_values, verdict
from interpedia_autointerp.score import repository as scores
from interpedia_autointerp.workshop import Workshop
from interpedia_shared.contracts.autointerp import RedTeamRequest
from interpedia_shared.db.base import JSON
from interpedia_shared.explanations import NewExplanation, add_explanations, clean_text
from interpedia_shared.ids import FeatureRef
from interpedia_shared.jobs import TaskContext

STAGE = "redteam"
REVISED = "redteam-revision"
CONTROLS, CONTROL_TOKENS = 40, 32
TRAP_WORDS = 12
_SHOWN = 24


@dataclass(frozen=True)
class Version:
    """One version of the hypothesis."""

    explanation_id: int
    hypothesis: Hypothesis


class RedTeamTask:
    """Handler of `redteam`."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def __call__(self, context: TaskContext) -> JSON:
        """Attack, judge, revise; again asks nothing that was answered.

        Raises:
            TaskFailed: the job is paused: budget or quota is used up.
            Problem: the endpoint or the live model failed altogether.
        """
        ledger = Ledger(context, STAGE)
        async with stoppable(context):
            try:
                return {"report": await RedTeaming(self._workshop, context, ledger).run()}
            finally:
                await ledger.tell(at_once=True)


class RedTeaming:
    """One attempt at one hypothesis."""

    def __init__(self, workshop: Workshop, context: TaskContext, ledger: Ledger) -> None:
        self._workshop = workshop
        self._context = context
        self._ledger = ledger
        self._request = RedTeamRequest.model_validate(context.job_params["request"])
        params = context.params
        self._sae_id: int = params["sae_id"]
        self._version_id: int = params["version_id"]
        self._feature = FeatureRef.parse(params["feature"])
        self._run_id = uuid.UUID(context.job_params["runs"]["redteam:redteam"])
        request = self._request
        self._attacker = None
        if request.endpoint is not None:
            self._attacker = Attacker(
                workshop.caller, request.endpoint, self._run_id, context.job_id, request.seed, request.repeat
            )

    async def run(self) -> dict[str, Any]:
        """All rounds; the report of each."""
        index = self._feature.index
        task = (await self._workshop.shelf.tasks(self._version_id, [index], verify=False))[index]
        if task.status == "dead":
            self._ledger.count("dead")
            return {"status": "dead", "detail": task.detail, "rounds": []}
        maxima = sorted(abs(window.max) for window in task.windows if window.fires)
        controls = await self._controls()
        version = await self._first()
        used: list[str] = []
        rounds: list[dict[str, Any]] = []
        for number in range(1, self._request.rounds + 1):
            attempts, failures = await self._attempts(number, version, task, used)
            used += [each.text for each in attempts]
            attempts = await run_texts(self._workshop.live, self._feature, [*attempts, *controls], maxima)
            found = verdict(attempts, seed=self._request.seed)
            await self._keep(number, version, attempts, found, has_material=task.status == "ok")
            rounds.append(_report(number, version, found, failures, task))
            self._context.report(min(number, self._context.weight))
            if not found.counterexamples or number == self._request.rounds:
                break
            revised = await self._revised(version, attempts)
            if revised is None:
                rounds[-1]["revision"] = "the LLM gave none of use"
                break
            version = revised
        return {"status": task.status, "feature": str(self._feature), "rounds": rounds}

    async def _first(self) -> Version:
        async with self._context.database.read() as session:
            row = await repository.find(session, self._context.params["explanation"])
        if row is None:
            raise ValueError("the explanation was deleted")
        return Version(row.id, Hypothesis.from_json({**row.hypothesis, "text": row.text}))

    async def _controls(self) -> list[Attempt]:
        """Random windows of the corpus, as they are."""
        build = await self._workshop.shelf.build(self._version_id)
        async with self._context.database.read() as session:
            passages = await sample_passages(session, build, CONTROLS, seed=self._request.seed)
        found: list[Attempt] = []
        for passage in passages:
            start, stop = next(grid(len(passage.ids), build.first, CONTROL_TOKENS))
            ids = passage.ids[:stop]
            text = "".join(build.pieces(passage.ids[start:stop]))
            found.append(Attempt(text, "control", "control", CORPUS, token_ids=tuple(map(int, ids))))
        return found

    async def _attempts(
        self, number: int, version: Version, task: Task, used: Sequence[str]
    ) -> tuple[list[Attempt], list[str]]:
        """A person's texts in the first round; the LLM's in every one, never the same twice."""
        attempts: list[Attempt] = []
        failures: list[str] = []
        if number == 1:
            attempts += await self._own(version)
        if self._attacker is not None:
            written, failures = await self._attacker.write(
                version.hypothesis,
                count=self._request.per_kind,
                words=_trap_words(task),
                used=[*used, *(each.text for each in attempts)],
            )
            attempts += await self._attacker.check(version.hypothesis, written)
            for failure in failures:
                self._ledger.fail(f"round {number} {failure.partition(':')[0]}", failure)
        return attempts, failures

    async def _own(self, version: Version) -> list[Attempt]:
        async with self._context.database.read() as session:
            name = await repository.account_name(session, self._context.job_params["account_id"])
            kept: list[Attempt] = []
            if self._request.use_kept_texts:
                kept = await repository.kept_texts(
                    session,
                    self._sae_id,
                    self._feature.index,
                    hypothesis=version.hypothesis.text,
                    without=self._run_id,
                )
        own = [Attempt(each.text, each.intent, "own", name, each.pair) for each in self._request.texts]
        texts = {each.text for each in own}
        return [*own, *(each for each in kept if each.text not in texts)]

    async def _keep(
        self,
        number: int,
        version: Version,
        attempts: Sequence[Attempt],
        found: RedTeamVerdict,
        *,
        has_material: bool,
    ) -> None:
        """Store texts and numbers, unless somebody changed the hypothesis while it was tested."""
        where = repository.Round(
            self._run_id, self._sae_id, self._feature.index, number, version.explanation_id
        )
        async with self._context.database.write() as session:
            is_same = await scores.keep(
                session,
                self._run_id,
                version.explanation_id,
                text=version.hypothesis.text,
                values=score_values(found, judge=self._request.endpoint, has_material=has_material),
                verdicts=[],
            )
            if is_same:
                await repository.keep_round(session, where, attempts)
        if is_same:
            self._ledger.count("tested")
        else:
            self._ledger.fail(f"round {number}", scores.CHANGED)

    async def _revised(self, version: Version, attempts: Sequence[Attempt]) -> Version | None:
        """A better version, by what was found; its own next test is on other texts."""
        async with self._context.database.read() as session:
            there = await repository.revision(session, self._run_id, version.explanation_id)
        if there is not None:
            return Version(*there)
        assert self._attacker is not None
        try:
            answers = await self._attacker.ask([self._revision_request(version, attempts)])
            hypothesis = read_hypothesis(answers[0], [each.text for each in attempts])
            hypothesis = replace(hypothesis, text=clean_text(hypothesis.text))
        except (BadHypothesis, ValueError) as error:
            self._ledger.fail("revision", str(error))
            return None
        stored = {**hypothesis.to_json(), "parent": version.explanation_id}
        row = NewExplanation(
            self._feature.index,
            hypothesis.text,
            REVISED,
            self._context.job_params["account_id"],
            self._run_id,
            stored,
        )
        async with self._context.database.write() as session:
            ids = await add_explanations(session, self._sae_id, [row])
        return Version(ids[0], hypothesis)

    def _revision_request(self, version: Version, attempts: Sequence[Attempt]) -> LLMRequest:
        assert self._attacker is not None
        shown = [each for each in attempts if each.counts and each.intent != "control"][:_SHOWN]
        tested = [
            {
                "text": each.text,
                "expected": "active" if each.intent == "should_fire" else "silent",
                "strength": round(each.quantile or 0.0, 2),
                "token": _peak_token(each),
            }
            for each in shown
        ]
        data = {"claim": version.hypothesis.text, "tested": tested}
        return LLMRequest(
            (Message("system", REVISE.system), Message("user", as_data(data))),
            endpoint=self._attacker.endpoint,
            output=HYPOTHESIS,
            sampling=Sampling(1000, seed=self._request.seed),
            repeat=self._request.repeat,
            allow_repair=True,
        )


def _trap_words(task: Task) -> list[str]:
    """The tokens on which it fires most, each once."""
    peaks = [window.pieces[window.peak].strip() for window in task.of("explain", fires=True)]
    return [word for word in dict.fromkeys(peaks) if word][:TRAP_WORDS]


def _peak_token(each: Attempt) -> str:
    if not each.max or not each.tokens:
        return ""
    return each.tokens[max(range(len(each.values)), key=lambda at: abs(each.values[at]))]


def _report(
    number: int, version: Version, found: RedTeamVerdict, failures: Sequence[str], task: Task
) -> dict[str, Any]:
    """One round for people and programs."""
    return {
        "round": number,
        "explanation": version.explanation_id,
        "text": version.hypothesis.text,
        "outcome": found.outcome if task.status == "ok" else "insufficient",
        "signed_auroc": asdict(found.signed_auroc),
        "hit_rates": {name: asdict(rate) for name, rate in found.hits.items()},
        "paired_win_rate": asdict(found.pairs),
        "p_pairs": found.p,
        "trap_rate": asdict(found.traps),
        "off_intent": found.n_off_intent,
        "failed_texts": found.n_failed,
        "failed_kinds": list(failures),
        "refuted_by": [
            {
                "text": each.text,
                "intent": each.intent,
                "kind": each.kind,
                "author": each.author,
                "max_activation": each.max,
                "quantile": each.quantile,
                "token": _peak_token(each),
            }
            for each in found.counterexamples
        ],
    }
