"""The template language: prompts with slots, as data. Nothing in it is ever executed. No torch.

```yaml
id: gendered-pronoun
title: The pronoun of a tag question
text: "So {F} is such a good {JOB}, isn't"       # or `variants`: a list of text, good and bad
good: [" she"]
bad: [" he"]
slots:
  F: {list: female_names}                        # a bundled list, or one under `lists`
  M: {values: [Tom, Mark]}
  JOB: {list: jobs}
constraints: ["single_token(F, M)"]              # distinct(…), single_token(…), same_length(…)
corrupt: {F: "{M}"}                              # "F#2" is the second mention alone
roles: {name: F, end: last}
```

A list holds words, or records such as `{country: France, capital: Paris}`, of which `{C.capital}` names one
field; `{range: [2, 8]}` stands for whole numbers. An answer is text with slots that is one token behind the
prompt, or `{digits_above: T}`, `{digits_below: T}` for all digits on one side of a slot. `{{` and `}}` are
braces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Value = Mapping[str, str]
"""The fields of a record; a plain word is a record whose only field is ''."""
ConstraintKind = Literal["distinct", "single_token", "same_length"]


@dataclass(frozen=True)
class Mention:
    """`{SLOT}` or `{SLOT.field}` in a text; `number` counts the slot's mentions in that text from 1."""

    slot: str
    field: str
    number: int

    @property
    def name(self) -> str:
        """As it is written, without braces."""
        return f"{self.slot}.{self.field}" if self.field else self.slot


Pieces = tuple[str | Mention, ...]


@dataclass(frozen=True)
class Digits:
    """All digits above or below the digit that a slot holds."""

    above: bool
    mention: Mention


@dataclass(frozen=True)
class Variant:
    """One wording, with its answers."""

    text: Pieces
    good: tuple[Pieces | Digits, ...]
    bad: tuple[Pieces | Digits, ...]


@dataclass(frozen=True)
class Slot:
    """A name and what may stand there."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Constraint:
    """Something that must hold of the values drawn, or of their tokens."""

    kind: ConstraintKind
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class Place:
    """Mentions of a slot in a text; `number` None = all of them."""

    slot: str
    number: int | None

    def covers(self, mention: Mention) -> bool:
        """Whether `mention` is one of them."""
        return mention.slot == self.slot and self.number in (None, mention.number)


@dataclass(frozen=True)
class Role:
    """A name for positions: places in the text, or the last token."""

    name: str
    places: tuple[Place, ...]
    """None at all = the last token."""


@dataclass(frozen=True)
class Template:
    """A checked template; from `parse_template`."""

    id: str
    title: str
    description: str
    variants: tuple[Variant, ...]
    slots: tuple[Slot, ...]
    constraints: tuple[Constraint, ...] = ()
    corrupt: tuple[tuple[Place, Pieces], ...] = ()
    roles: tuple[Role, ...] = ()
    source: str | None = None
    """The YAML text it was read from, if it was."""


def mentions(pieces: Pieces) -> Iterator[Mention]:
    """Yield the mentions in a text, in order."""
    yield from (piece for piece in pieces if isinstance(piece, Mention))


def fill(pieces: Pieces, values: Mapping[str, Value]) -> str:
    """Return the text with values in the slots."""
    return "".join(piece if isinstance(piece, str) else values[piece.slot][piece.field] for piece in pieces)
