"""A small part of YAML: mappings, lists and scalars as text. No tags, anchors, aliases or types. No torch."""

from __future__ import annotations

from typing import Any

import yaml

from interpedia_engine.errors import BadTemplate

MAX_BYTES = 65_536
MAX_DEPTH = 12
MAX_NODES = 5_000


def read_yaml(text: str) -> Any:
    """Return dicts, lists and strings; every scalar stays as it is written (`no` and `1732` are strings).

    Built from the parser's events rather than by a loader, so that nothing is constructed, expanded or
    silently overwritten.

    Raises:
        BadTemplate: it is too large or too deep, is no YAML, or uses more of YAML than this.
    """
    size = len(text.encode("utf-8", errors="replace"))
    if size > MAX_BYTES:
        raise BadTemplate("template", f"has {size} bytes, more than {MAX_BYTES}")
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise BadTemplate("template", f"is no YAML{_where(error)}") from error
    return builder.result()


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return place + ("" if problem is None else f": {problem}")


class _Builder:
    """Puts events together without recursion."""

    def __init__(self) -> None:
        self._root: list[Any] = []
        self._open: list[tuple[Any, list[str]]] = [(self._root, [])]
        self._n_nodes = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise BadTemplate("template", f"line {line}: anchors and aliases are not taken")
        if isinstance(event, yaml.ScalarEvent):
            self._no_tag(event.tag, line)
            self._add(event.value, line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._no_tag(event.tag, line)
            node: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._add(node, line)
            self._open.append((node, []))
            if len(self._open) > MAX_DEPTH:
                raise BadTemplate("template", f"line {line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()

    def result(self) -> Any:
        if len(self._root) != 1:
            raise BadTemplate("template", f"one YAML document is needed, not {len(self._root)}")
        return self._root[0]

    def _add(self, value: Any, line: int) -> None:
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise BadTemplate("template", f"has more than {MAX_NODES} nodes")
        parent, keys = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
        elif not keys:
            if not isinstance(value, str):
                raise BadTemplate("template", f"line {line}: a key is a word, not a list or mapping")
            if value in parent:
                raise BadTemplate("template", f"line {line}: the key {value!r} is there twice")
            keys.append(value)
        else:
            parent[keys.pop()] = value

    def _no_tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            raise BadTemplate("template", f"line {line}: tags are not taken")
