"""Reading a method's parameters, and refusing what cannot be explained."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from interpedia_autointerp.explainers.method import How
from interpedia_autointerp.material.task import Task

Model = TypeVar("Model", bound=BaseModel)


class NotReady(ValueError):
    """The feature is dead, or has too few examples: there is nothing to explain or to score."""


def params_of(model: type[Model], how: How) -> Model:
    """The parameters as the method's model.

    Raises:
        pydantic.ValidationError: they are not.
    """
    if isinstance(how.params, model):
        return how.params
    return model.model_validate(how.params or {})


def ready(task: Task) -> None:
    """Return when there is enough material.

    Raises:
        NotReady: there is not.
    """
    if task.status != "ok":
        raise NotReady(f"{task.feature}: {task.status}: {task.detail}")


def settled(model: type[BaseModel], how: How) -> How:
    """The same, with the parameters as the method's model."""
    return replace(how, params=params_of(model, how))
