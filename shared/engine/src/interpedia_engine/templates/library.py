"""The bundled templates and lists: YAML files beside this module. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from interpedia_engine.errors import BadTemplate
from interpedia_engine.templates.language import Template, Value
from interpedia_engine.templates.parsing import parse_source, read_lists
from interpedia_engine.templates.yaml_text import read_yaml

_PACKAGE, _FOLDER = "interpedia_engine.templates", "library"
_LISTS = "lists.yaml"
_LOOKS_LIKE_AN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def bundled_ids() -> list[str]:
    """Return the ids of all bundled templates, sorted."""
    return sorted(_texts())


def bundled(template_id: str) -> Template:
    """Return a bundled template; its `source` is its YAML text.

    Raises:
        BadTemplate: there is none of this id; the detail lists those there are.
    """
    if template_id not in _texts():
        known = ", ".join(bundled_ids())
        raise BadTemplate("template", f"{template_id[:64]!r} is not bundled; there are {known}")
    return _parsed(template_id)


def parse_template(source: str | Mapping[str, Any]) -> Template:
    """Read a template from YAML text or from an object; bundled lists may be named.

    Raises:
        BadTemplate: `field` is the path of what is wrong (`template.slots.A.list`), `detail` the fact.
    """
    return parse_source(source, _lists().get)


def find_template(source: str | Mapping[str, Any]) -> Template:
    """Return a bundled template by id, or read YAML text or an object.

    One word of letters, digits, dashes and underscores is an id.

    Raises:
        BadTemplate: see `bundled` and `parse_template`.
    """
    if isinstance(source, str) and _LOOKS_LIKE_AN_ID.fullmatch(source.strip()):
        return bundled(source.strip())
    return parse_template(source)


@lru_cache(maxsize=1)
def _texts() -> dict[str, str]:
    folder = resources.files(_PACKAGE).joinpath(_FOLDER)
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".yaml") and file.name != _LISTS
    }


@lru_cache(maxsize=1)
def _lists() -> dict[str, tuple[Value, ...]]:
    text = resources.files(_PACKAGE).joinpath(_FOLDER, _LISTS).read_text(encoding="utf-8")
    return read_lists(read_yaml(text), "lists")


@lru_cache(maxsize=64)
def _parsed(template_id: str) -> Template:
    return parse_template(_texts()[template_id])
