"""What an order may cost, from a few of its features; nothing is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from interpedia_autointerp.explainers import Explainer, How, Hypothesis
from interpedia_autointerp.frozen import TaskShelf
from interpedia_autointerp.llm import AnyRequest, Caller, Estimate
from interpedia_autointerp.material import Task
from interpedia_autointerp.scorers import NoRule, Scorer, TooLong, expected_requests
from interpedia_autointerp.targets import Target
from interpedia_shared.contracts.autointerp import Amounts, EstimateOut

SAMPLE = 6
TYPICAL = Hypothesis("words about rivers, lakes and the people who live beside them, at the noun itself")
"""Stands in for explanations that are yet to be made."""

Requests = Callable[[Task], Iterable[AnyRequest]]


async def estimate_order(
    caller: Caller, shelf: TaskShelf, targets: Sequence[Target], requests: Requests
) -> EstimateOut:
    """Plan a sample and multiply. Material is made from what is stored; the live model is not asked."""
    total = sum(len(target.indices) for target in targets)
    tasks: list[Task] = []
    for target, indices in _sampled(targets):
        tasks += (await shelf.tasks(target.version_id, indices, verify=False)).values()
    ready = [task for task in tasks if task.status == "ok"]
    found = caller.estimate(request for task in ready for request in requests(task))
    return EstimateOut(
        features=total,
        sampled=len(tasks),
        without_material=len(tasks) - len(ready),
        total=_amounts(found, total / max(1, len(tasks))),
        per_feature=_amounts(found, 1 / max(1, len(tasks))),
    )


def explaining(explainers: Sequence[tuple[Explainer, How]]) -> Requests:
    """All questions of explaining one feature."""

    def requests(task: Task) -> Iterable[AnyRequest]:
        for explainer, how in explainers:
            yield from explainer.plan(task, how)

    return requests


def scoring(scorers: Sequence[tuple[Scorer, How]], per_feature: int = 1) -> Requests:
    """All questions of scoring a feature's explanations, each beside another feature's."""

    def requests(task: Task) -> Iterable[AnyRequest]:
        for scorer, how in scorers:
            try:
                once = expected_requests(scorer, task, TYPICAL, how)
            except (NoRule, TooLong):
                continue
            yield from once * (2 * per_feature)

    return requests


def together(*parts: Requests) -> Requests:
    """The questions of all parts."""

    def requests(task: Task) -> Iterable[AnyRequest]:
        for part in parts:
            yield from part(task)

    return requests


def _sampled(targets: Sequence[Target]) -> Iterable[tuple[Target, list[int]]]:
    """A few features of each, evenly over the list."""
    each = max(1, SAMPLE // max(1, len(targets)))
    for target in targets[:SAMPLE]:
        n = len(target.indices)
        chosen = {target.indices[(2 * k + 1) * n // (2 * each)] for k in range(each)} if n else set[int]()
        yield target, sorted(chosen)


def _amounts(found: Estimate, times: float) -> Amounts:
    def money(micro: int | None) -> float | None:
        return None if micro is None else round(micro * times / 1e6, 6)

    return Amounts(
        calls=round(found.calls * times),
        tokens_low=round(found.tokens_low * times),
        tokens_high=round(found.tokens_high * times),
        money_low=money(found.micro_low),
        money_high=money(found.micro_high),
    )
