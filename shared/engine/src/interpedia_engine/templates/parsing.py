"""From YAML text or an object to a checked `Template`. No torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from interpedia_engine.errors import BadTemplate
from interpedia_engine.templates.language import (
    Constraint,
    ConstraintKind,
    Digits,
    Mention,
    Pieces,
    Place,
    Role,
    Slot,
    Template,
    Value,
    Variant,
    mentions,
)
from interpedia_engine.templates.yaml_text import read_yaml

MAX_TEXT_CHARACTERS = 4_000
MAX_VALUE_CHARACTERS = 200
MAX_VALUES = 2_000
MAX_SLOTS, MAX_VARIANTS, MAX_ANSWERS, MAX_CONSTRAINTS, MAX_ROLES = 32, 16, 64, 64, 32
MAX_MENTIONS = 64
"""Of slots in one text."""

_KEYS = frozenset(
    {
        *("id", "title", "description", "text", "good", "bad", "variants"),
        *("lists", "slots", "constraints", "corrupt", "roles"),
    }
)
_KINDS: dict[str, ConstraintKind] = {
    "distinct": "distinct",
    "single_token": "single_token",
    "same_length": "same_length",
}
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_SLOT, _FIELD = r"[A-Z][A-Z0-9_]{0,31}", r"[a-z][a-z0-9_]{0,31}"
_NAME = re.compile(rf"({_SLOT})(?:\.({_FIELD}))?", re.ASCII)
_PLACE = re.compile(rf"({_SLOT})(?:#([1-9][0-9]?))?", re.ASCII)
_CALL = re.compile(r"([a-z_]+)\(([^()]*)\)")
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INTEGER = re.compile(r"-?[0-9]{1,6}", re.ASCII)

FindList = Callable[[str], "tuple[Value, ...] | None"]


def parse_source(source: str | Mapping[str, Any], find_list: FindList) -> Template:
    """Read a template; `find_list` knows the lists that are not its own.

    Raises:
        BadTemplate: `field` is the path of what is wrong, `detail` the fact.
    """
    text = source if isinstance(source, str) else None
    data = _mapping(read_yaml(source) if isinstance(source, str) else source, "template")
    _known_keys(data, _KEYS, "template")
    slots = _slots(data, find_list)
    checker = _Names(slots)
    variants = _variants(data, checker)
    template_id = _text(data.get("id", "own"), "template.id", 64)
    if not _ID.fullmatch(template_id):
        raise BadTemplate("template.id", f"{template_id!r} is not made of small letters, digits and dashes")
    return Template(
        id=template_id,
        title=_text(data.get("title", template_id), "template.title", MAX_VALUE_CHARACTERS),
        description=_text(data.get("description", ""), "template.description", MAX_TEXT_CHARACTERS),
        variants=variants,
        slots=tuple(slots.values()),
        constraints=tuple(_constraints(data, checker)),
        corrupt=tuple(_corrupt(data, checker, variants)),
        roles=tuple(_roles(data, checker, variants)),
        source=text,
    )


def read_lists(data: Any, field: str) -> dict[str, tuple[Value, ...]]:
    """Read named lists of words or records.

    Raises:
        BadTemplate: one is malformed.
    """
    return {name: _values(values, f"{field}.{name}") for name, values in _mapping(data, field).items()}


class _Names:
    """Knows the slots, and turns names into mentions."""

    def __init__(self, slots: Mapping[str, Slot]) -> None:
        self._fields = {name: set(slot.values[0]) for name, slot in slots.items()}

    def pieces(self, value: Any, field: str, limit: int = MAX_TEXT_CHARACTERS) -> Pieces:
        """Read a text with slots."""
        text, pieces, counts, end = _text(value, field, limit), list[str | Mention](), dict[str, int](), 0
        for match in _BRACES.finditer(text):
            pieces.append(text[end : match.start()])
            end = match.end()
            if match[0] in ("{{", "}}"):
                pieces.append(match[0][0])
            elif match[1] is None:
                raise BadTemplate(field, f"a brace stands alone at character {match.start()}; write it twice")
            else:
                slot = match[1].split(".")[0]
                counts[slot] = counts.get(slot, 0) + 1
                pieces.append(self.mention(match[1], field, counts[slot]))
        if sum(counts.values()) > MAX_MENTIONS:
            raise BadTemplate(field, f"mentions slots {sum(counts.values())} times, more than {MAX_MENTIONS}")
        pieces.append(text[end:])
        return tuple(piece for piece in pieces if piece != "")

    def mention(self, name: str, field: str, number: int = 1) -> Mention:
        """Read `SLOT` or `SLOT.field`."""
        match = _NAME.fullmatch(name.strip())
        if match is None:
            raise BadTemplate(field, f"{name!r} is no slot: capital letters, digits and _, then maybe .field")
        slot, part = match[1], match[2] or ""
        self.known(slot, field)
        if part not in self._fields[slot]:
            fields = ", ".join(sorted(f"{slot}.{one}" for one in self._fields[slot] if one)) or slot
            raise BadTemplate(field, f"{name!r} is not there: it is {fields}")
        return Mention(slot, part, number)

    def known(self, slot: str, field: str) -> None:
        """Check that a slot is there."""
        if slot not in self._fields:
            raise BadTemplate(field, f"there is no slot {slot!r}{_near(slot, self._fields)}")


def _slots(data: Mapping[str, Any], find_list: FindList) -> dict[str, Slot]:
    own = read_lists(data.get("lists", {}), "template.lists")
    given = _mapping(data.get("slots", {}), "template.slots")
    if len(given) > MAX_SLOTS:
        raise BadTemplate("template.slots", f"{len(given)} are more than {MAX_SLOTS}")
    slots: dict[str, Slot] = {}
    for name, definition in given.items():
        field = f"template.slots.{name}"
        if not re.fullmatch(_SLOT, name, re.ASCII):
            raise BadTemplate(field, "a slot is named by capital letters, digits and _")
        slots[name] = Slot(name, _slot_values(definition, field, own, find_list))
    return slots


def _slot_values(
    definition: Any, field: str, own: Mapping[str, tuple[Value, ...]], find_list: FindList
) -> tuple[Value, ...]:
    mapping = _mapping(definition, field)
    _known_keys(mapping, {"list", "values", "range"}, field)
    if len(mapping) != 1:
        raise BadTemplate(field, "give one of list, values and range")
    if "values" in mapping:
        return _values(mapping["values"], f"{field}.values")
    if "range" in mapping:
        return _range(mapping["range"], f"{field}.range")
    name = _text(mapping["list"], f"{field}.list", MAX_VALUE_CHARACTERS)
    found = own[name] if name in own else find_list(name)
    if found is None:
        raise BadTemplate(f"{field}.list", f"there is no list {name!r}")
    return found


def _values(given: Any, field: str) -> tuple[Value, ...]:
    items = _list(given, field, MAX_VALUES)
    if not items:
        raise BadTemplate(field, "is empty")
    values: list[Value] = []
    for i, item in enumerate(items):
        if isinstance(item, Mapping):
            record = cast("Mapping[Any, Any]", item)
            values.append(_record(record, f"{field}[{i}]"))
        else:
            values.append({"": _text(item, f"{field}[{i}]", MAX_VALUE_CHARACTERS)})
        if set(values[-1]) != set(values[0]):
            raise BadTemplate(f"{field}[{i}]", "has other fields than the first one")
    return tuple(values)


def _record(record: Mapping[Any, Any], field: str) -> Value:
    if not record:
        raise BadTemplate(field, "is an empty record")
    for name in record:
        if not isinstance(name, str) or not re.fullmatch(_FIELD, name, re.ASCII):
            raise BadTemplate(field, f"{str(name)[:40]!r} is no field: small letters, digits and _")
    return {name: _text(value, f"{field}.{name}", MAX_VALUE_CHARACTERS) for name, value in record.items()}


def _range(given: Any, field: str) -> tuple[Value, ...]:
    ends = [_text(end, field, 8) for end in _list(given, field, 2)]
    if len(ends) != 2 or not all(_INTEGER.fullmatch(end) for end in ends):
        raise BadTemplate(field, "two whole numbers are needed: [first, last]")
    first, last = int(ends[0]), int(ends[1])
    if not first <= last < first + MAX_VALUES:
        raise BadTemplate(field, f"{first} to {last} is empty, or more than {MAX_VALUES} numbers")
    return tuple({"": str(number)} for number in range(first, last + 1))


def _variants(data: Mapping[str, Any], names: _Names) -> tuple[Variant, ...]:
    single = [key for key in ("text", "good", "bad") if key in data]
    if ("variants" in data) == bool(single):
        raise BadTemplate("template", "give either text, good and bad, or variants")
    if single:
        return (_variant(data, "template", names),)
    given = _list(data["variants"], "template.variants", MAX_VARIANTS)
    if not given:
        raise BadTemplate("template.variants", "is empty")
    variants: list[Variant] = []
    for i, one in enumerate(given):
        field = f"template.variants[{i}]"
        mapping = _mapping(one, field)
        _known_keys(mapping, {"text", "good", "bad"}, field)
        variants.append(_variant(mapping, field, names))
    return tuple(variants)


def _variant(mapping: Mapping[str, Any], field: str, names: _Names) -> Variant:
    text = names.pieces(mapping.get("text", ""), f"{field}.text")
    if not text:
        raise BadTemplate(f"{field}.text", "is missing or empty")
    good = _answers(mapping.get("good", []), f"{field}.good", names)
    if not good:
        raise BadTemplate(f"{field}.good", "at least one answer is needed")
    return Variant(text, good, _answers(mapping.get("bad", []), f"{field}.bad", names))


def _answers(given: Any, field: str, names: _Names) -> tuple[Pieces | Digits, ...]:
    answers: list[Pieces | Digits] = []
    for i, item in enumerate(_list(given, field, MAX_ANSWERS)):
        place = f"{field}[{i}]"
        if isinstance(item, Mapping):
            answers.append(_digits(cast("Mapping[str, Any]", item), place, names))
            continue
        pieces = names.pieces(item, place, MAX_VALUE_CHARACTERS)
        if not pieces:
            raise BadTemplate(place, "is empty")
        answers.append(pieces)
    return tuple(answers)


def _digits(item: Mapping[str, Any], field: str, names: _Names) -> Digits:
    _known_keys(item, {"digits_above", "digits_below"}, field)
    if len(item) != 1:
        raise BadTemplate(field, "give one of digits_above and digits_below")
    ((kind, name),) = item.items()
    return Digits(kind == "digits_above", names.mention(_text(name, field, 80), field))


def _constraints(data: Mapping[str, Any], names: _Names) -> Iterable[Constraint]:
    given = _list(data.get("constraints", []), "template.constraints", MAX_CONSTRAINTS)
    for i, item in enumerate(given):
        field = f"template.constraints[{i}]"
        match = _CALL.fullmatch(_text(item, field, MAX_VALUE_CHARACTERS).strip())
        if match is None or match[1] not in _KINDS:
            raise BadTemplate(field, f"write one of {', '.join(_KINDS)}, then slots in round brackets")
        named = tuple(names.mention(name, field) for name in match[2].split(","))
        if match[1] != "single_token" and len(named) < 2:
            raise BadTemplate(field, f"{match[1]} needs two slots or more")
        yield Constraint(_KINDS[match[1]], named)


def _corrupt(
    data: Mapping[str, Any], names: _Names, variants: tuple[Variant, ...]
) -> Iterable[tuple[Place, Pieces]]:
    for key, value in _mapping(data.get("corrupt", {}), "template.corrupt").items():
        field = f"template.corrupt.{key}"
        yield _place(key, field, names, variants), names.pieces(value, field, MAX_VALUE_CHARACTERS)


def _roles(data: Mapping[str, Any], names: _Names, variants: tuple[Variant, ...]) -> Iterable[Role]:
    given = _mapping(data.get("roles", {}), "template.roles")
    if len(given) > MAX_ROLES:
        raise BadTemplate("template.roles", f"{len(given)} are more than {MAX_ROLES}")
    for name, value in given.items():
        field = f"template.roles.{name}"
        if len(name) > 40 or name == "other":
            raise BadTemplate(field, "a role's name has at most 40 characters and is not 'other'")
        if value == "last":
            yield Role(name, ())
            continue
        keys = _list(value if isinstance(value, list) else [value], field, MAX_SLOTS)
        if not keys:
            raise BadTemplate(field, "names no slot")
        yield Role(name, tuple(_place(_text(key, field, 80), field, names, variants) for key in keys))


def _place(key: str, field: str, names: _Names, variants: tuple[Variant, ...]) -> Place:
    match = _PLACE.fullmatch(key)
    if match is None:
        raise BadTemplate(field, f"{key[:40]!r} is no place: a slot, then maybe # and which mention of it")
    names.known(match[1], field)
    place = Place(match[1], int(match[2]) if match[2] else None)
    if not any(place.covers(mention) for variant in variants for mention in mentions(variant.text)):
        raise BadTemplate(field, f"no text mentions {key}")
    return place


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadTemplate(field, "a mapping is needed")
    mapping = cast("Mapping[Any, Any]", value)
    if any(not isinstance(key, str) for key in mapping):
        raise BadTemplate(field, "keys are words")
    return mapping


def _list(value: Any, field: str, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise BadTemplate(field, "a list is needed")
    items = cast("list[Any]", value)
    if len(items) > limit:
        raise BadTemplate(field, f"{len(items)} entries are more than {limit}")
    return items


def _text(value: Any, field: str, limit: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadTemplate(field, "a text is needed")
    if len(value) > limit:
        raise BadTemplate(field, f"has {len(value)} characters, more than {limit}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadTemplate(field, "has a lone surrogate, which is no character")
    return value


def _known_keys(mapping: Mapping[str, Any], known: Iterable[str], field: str) -> None:
    for key in mapping:
        if key not in known:
            raise BadTemplate(field, f"{key[:40]!r} is not known{_near(key, known)}")


def _near(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; is it {near[0]!r}?" if near else ""
