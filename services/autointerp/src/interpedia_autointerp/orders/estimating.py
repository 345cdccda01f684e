"""What an order may cost, from a few of its features; nothing is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Literal

from interpedia_autointerp.explainers import MAX_TEXT, Explainer, How, Hypothesis
from interpedia_autointerp.frozen import TaskShelf
from interpedia_autointerp.llm import AnyRequest, Caller, Estimate
from interpedia_autointerp.material import Task
from interpedia_autointerp.material.settings import MaterialSettings
from interpedia_autointerp.material.window import Window
from interpedia_autointerp.scorers import NoRule, Scorer, TooLong, expected_requests
from interpedia_autointerp.targets import Target
from interpedia_shared.contracts.autointerp import MAX_HYPOTHESIS, Amounts, EstimateOut
from interpedia_shared.ids import FeatureRef

SAMPLE = 6
TYPICAL = Hypothesis("words about rivers, lakes and the people who live beside them, at the noun itself")
"""Stands in for explanations that are yet to be made."""

Size = Literal["likely", "largest"]
Requests = Callable[[Task, Size], Iterable[AnyRequest]]
Texts = Mapping[FeatureRef, Sequence[Hypothesis]]


async def estimate_order(
    caller: Caller,
    shelf: TaskShelf,
    targets: Sequence[Target],
    requests: Requests,
    *,
    verify: bool = False,
    texts: Texts | None = None,
) -> EstimateOut:
    """Plan a sample and multiply. Material is made from what is stored; the live model is not asked.

    Args:
        caller: knows the endpoints.
        shelf: makes the material.
        targets: the features.
        requests: what is asked about one of them.
        verify: near misses will be looked for: the material is counted with all that it may have.
        texts: the explanations of each feature, where they are what is counted.
    """

    def units(ref: FeatureRef) -> int:
        return 1 if texts is None else len(texts[ref])

    tasks: list[Task] = []
    for target, indices in _sampled(targets):
        tasks += (await shelf.tasks(target.version_id, indices, verify=False)).values()
    total = sum(units(target.ref(index)) for target in targets for index in target.indices)
    sampled = sum(units(task.feature) for task in tasks)
    ready = [_filled(task) if verify else task for task in tasks if task.status == "ok"]
    low = caller.estimate(request for task in ready for request in requests(task, "likely"))
    high = caller.estimate(request for task in ready for request in requests(task, "largest"))
    return EstimateOut(
        features=total,
        sampled=sampled,
        without_material=sampled - sum(units(task.feature) for task in ready),
        total=amounts(low, high, total / max(1, sampled)),
        per_feature=amounts(low, high, 1 / max(1, sampled)),
    )


def explaining(explainers: Sequence[tuple[Explainer, How]]) -> Requests:
    """All questions of explaining one feature."""

    def requests(task: Task, size: Size) -> Iterable[AnyRequest]:
        del size
        for explainer, how in explainers:
            yield from explainer.plan(task, how)

    return requests


def scoring(
    scorers: Sequence[tuple[Scorer, How]], per_feature: int = 1, *, texts: Texts | None = None
) -> Requests:
    """All questions of scoring a feature's explanations, each beside another feature's.

    Args:
        scorers: which.
        per_feature: explanations of a feature that are yet to be made.
        texts: those that are there.
    """

    def requests(task: Task, size: Size) -> Iterable[AnyRequest]:
        for own in [TYPICAL] * per_feature if texts is None else texts[task.feature]:
            made = replace(own, text=_LONGEST[:MAX_TEXT]) if texts is None and size == "largest" else own
            other = replace(TYPICAL, text=_LONGEST) if size == "largest" else made
            for scorer, how in scorers:
                yield from _asked(scorer, task, made, how)
                yield from _asked(scorer, task, other, how)

    return requests


_LONGEST = "\U00010348" * MAX_HYPOTHESIS


def _asked(scorer: Scorer, task: Task, hypothesis: Hypothesis, how: How) -> list[AnyRequest]:
    try:
        return expected_requests(scorer, task, hypothesis, how)
    except (NoRule, TooLong):
        return []


def together(*parts: Requests) -> Requests:
    """The questions of all parts."""

    def requests(task: Task, size: Size) -> Iterable[AnyRequest]:
        for part in parts:
            yield from part(task, size)

    return requests


def _filled(task: Task) -> Task:
    """With as many silent windows of each kind as it may get, copies of its own standing in for them."""
    if task.is_verified or not task.windows:
        return task
    settings = MaterialSettings()
    there = Counter(window.stratum for window in task.windows)
    splits = [split for split, share in settings.silent_shares.items() for _ in range(round(20 * share))]
    copies: list[Window] = []
    source, places = cycle(task.windows), cycle(splits)
    for kind, quota in settings.quotas.items():
        for number in range(quota - there[kind]):
            window = next(source)
            values = (0.0,) * len(window.values)
            name = f"{kind}-{number}"
            copies.append(replace(window, id=name, values=values, split=next(places), stratum=kind))
    return task.with_windows([*task.windows, *copies])


def _sampled(targets: Sequence[Target]) -> Iterable[tuple[Target, list[int]]]:
    """A few features of each, evenly over the list."""
    each = max(1, SAMPLE // max(1, len(targets)))
    for target in targets[:SAMPLE]:
        n = len(target.indices)
        chosen = {target.indices[(2 * k + 1) * n // (2 * each)] for k in range(each)} if n else set[int]()
        yield target, sorted(chosen)


def amounts(low: Estimate, high: Estimate, times: float = 1.0) -> Amounts:
    """For an answer: so many times what was planned."""

    def money(micro: int | None) -> float | None:
        return None if micro is None else round(micro * times / 1e6, 6)

    return Amounts(
        calls=round(low.calls * times),
        tokens_low=round(low.tokens_low * times),
        tokens_high=round(high.tokens_high * times),
        money_low=money(low.micro_low),
        money_high=money(high.micro_high),
    )
