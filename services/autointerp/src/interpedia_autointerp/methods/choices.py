"""From a method's name and parameters in a request to the method; what cannot run is refused up front."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from interpedia_autointerp.explainers import EXPLAINERS, Explainer, How, Prompt
from interpedia_autointerp.llm import Caller, JobPaused, Need
from interpedia_autointerp.scorers import SCORERS, Needs, Scorer
from interpedia_shared.contracts.autointerp import BudgetLimits, MethodChoice
from interpedia_shared.problems import Invalid, Unavailable

Method = TypeVar("Method", Explainer, Scorer)


def explainer_of(choice: MethodChoice, where: str = "#/methods") -> tuple[Explainer, Any]:
    """The explainer and its parameters.

    Raises:
        Invalid: there is none of this name, or its parameters are others.
    """
    return _method(EXPLAINERS, choice, where)


def scorer_of(choice: MethodChoice, where: str = "#/scorers") -> tuple[Scorer, Any]:
    """The scorer and its parameters.

    Raises:
        Invalid: there is none of this name, or its parameters are others.
    """
    return _method(SCORERS, choice, where)


def _method(known: Mapping[str, Method], choice: MethodChoice, where: str) -> tuple[Method, Any]:
    method = known.get(choice.name)
    if method is None:
        raise Invalid.field(f"{where}/name", f"no '{choice.name}' here; there are {', '.join(sorted(known))}")
    return method, _params(method.params_model, choice, where)


def _params(model: type[BaseModel], choice: MethodChoice, where: str) -> Any:
    try:
        params = model.model_validate(choice.params)
    except ValidationError as error:
        first = error.errors()[0]
        path = "/".join(map(str, first["loc"]))
        raise Invalid.field(f"{where}/params/{path}", f"{choice.name}: {first['msg']}") from error
    for name, value in params.model_dump().items():
        if not all(map(math.isfinite, _numbers(value))):
            raise Invalid.field(f"{where}/params/{name}", f"{choice.name}: a number is not finite")
    return params


def _numbers(value: Any) -> Iterator[float]:
    """The floating-point numbers in a parameter."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for each in cast("Collection[Any]", value):
            yield from _numbers(each)


def names_differ(choices: Sequence[MethodChoice], where: str) -> None:
    """Return when every method is named once: its run is found by its name.

    Raises:
        Invalid: one is named twice.
    """
    names = [choice.name for choice in choices]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise Invalid.field(where, f"'{twice[0]}' is named twice; make two jobs of it")


async def check_endpoint(
    caller: Caller, endpoint: str, needs: Iterable[tuple[str, Sequence[Need]]], budget: BudgetLimits
) -> None:
    """Return when the endpoint can do what the methods need, within the budget as far as is known.

    Args:
        caller: knows the endpoints.
        endpoint: its name.
        needs: of each method that calls an LLM; none when there are none.
        budget: of the order.

    Raises:
        EndpointNotFound, EndpointFailed, MissingCapability: see `Caller.require`.
        Invalid: the budget allows no call, or is money without prices.
        Unavailable: the endpoint wants money.
    """
    asking = [(method, need) for method, need in needs if need]
    if not asking:
        return
    method = asking[0][0]
    for name, value in (("tokens", budget.tokens), ("money", budget.money)):
        if value == 0:
            raise Invalid.field(f"#/budget/{name}", f"0 allows no call, and '{method}' calls an LLM")
    if budget.money is not None:
        await _check_prices(caller, endpoint)
    try:
        for method, need in asking:
            await caller.require(endpoint, need, method=method)
    except JobPaused as paused:
        raise Unavailable(f"LLM endpoint '{endpoint}': {paused.detail}") from paused


async def _check_prices(caller: Caller, endpoint: str) -> None:
    for each in await caller.describe():
        if each["name"] == endpoint and each["price_in"] is None:
            raise Invalid.field(
                "#/budget/money", f"endpoint '{endpoint}' has no prices in the settings; cap the tokens"
            )


def explainer_needs(choices: Sequence[MethodChoice], endpoint: str) -> list[tuple[str, Sequence[Need]]]:
    """What each explainer needs of the endpoint."""
    found: list[tuple[str, Sequence[Need]]] = []
    for number, choice in enumerate(choices):
        explainer, params = explainer_of(choice, f"#/methods/{number}")
        found.append((choice.name, explainer.needs(How(params, endpoint))))
    return found


def scorer_needs(choices: Sequence[MethodChoice], endpoint: str) -> list[tuple[str, Needs]]:
    """What each scorer needs."""
    found: list[tuple[str, Needs]] = []
    for number, choice in enumerate(choices):
        scorer, params = scorer_of(choice, f"#/scorers/{number}")
        found.append((choice.name, scorer.needs(How(params, endpoint))))
    return found


def prompt_id(prompt: Prompt | None) -> str | None:
    """`name@version:sha256` of what a method says to an LLM."""
    return None if prompt is None else f"{prompt.name}@{prompt.version}:{prompt.sha256}"
