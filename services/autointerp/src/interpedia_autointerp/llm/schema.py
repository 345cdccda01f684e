"""Checks a JSON value against the subset of JSON Schema that strict structured output allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}

_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda value, bound: value >= bound),
    "maximum": ("number", lambda value, bound: value <= bound),
    "minLength": ("string", lambda value, bound: len(value) >= bound),
    "maxLength": ("string", lambda value, bound: len(value) <= bound),
    "pattern": ("string", lambda value, bound: re.search(bound, value) is not None),
    "minItems": ("array", lambda value, bound: len(value) >= bound),
    "maxItems": ("array", lambda value, bound: len(value) <= bound),
}
_PLAIN = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "anyOf",
    "description",
    "title",
}
KNOWN = _PLAIN | _BOUNDS.keys()


class UnknownKeyword(ValueError):
    """The schema uses what this subset does not have, so it would not be checked."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Return if the whole schema is of the subset.

    Raises:
        UnknownKeyword: it is not; the text names the keyword.
    """
    unknown = schema.keys() - KNOWN
    if unknown:
        raise UnknownKeyword(f"schema keyword '{min(unknown)}' is not known here")
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    if "items" in schema:
        inner.append(schema["items"])
    for each in inner:
        check_schema(each)


def mismatch(value: Any, schema: Mapping[str, Any], where: str = "#") -> str | None:
    """The first place where the value is not as the schema says, as one sentence; None where it fits.

    The sentence holds words of the schema only, none of the value's.
    """
    if "anyOf" in schema:
        fits = any(mismatch(value, each, where) is None for each in schema["anyOf"])
        return None if fits else f"{where} fits none of the allowed forms"
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else list(kinds or ())
    if names and not any(_TYPES[name](value) for name in names):
        return f"{where} is not of type {' or '.join(names)}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{where} is not {schema['const']!r}"
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        return f"{where} is not one of {', '.join(map(str, schema['enum']))}"
    for name, (kind, is_kept) in _BOUNDS.items():
        if name in schema and _TYPES[kind](value) and not is_kept(value, schema[name]):
            return f"{where} breaks {name} {schema[name]}"
    return _inside(value, schema, where)


def _inside(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    """Check members and items."""
    if isinstance(value, list) and "items" in schema:
        found = (mismatch(each, schema["items"], f"{where}/{i}") for i, each in enumerate(value))
        return next((wrong for wrong in found if wrong is not None), None)
    if not isinstance(value, dict):
        return None
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} has no '{name}'"
    if schema.get("additionalProperties") is False and value.keys() - properties.keys():
        # its name is not repeated: this sentence goes into the next prompt, as our own words
        return f"{where} has a property that was not asked for"
    found = (mismatch(value[n], each, f"{where}/{n}") for n, each in properties.items() if n in value)
    return next((wrong for wrong in found if wrong is not None), None)


def _same(value: Any, other: Any) -> bool:
    """Equal, and not 1 for true."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
