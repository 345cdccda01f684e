"""From a template to prompts that a model's tokenizer writes as the template wants them."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interpedia_engine.effects.cases import Case, Metric, first_counted
from interpedia_engine.effects.steps import Progress, Steps, finish
from interpedia_engine.errors import BadTemplate, OutOfRange
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.templates.language import (
    Constraint,
    Digits,
    Mention,
    Pieces,
    Role,
    Template,
    Value,
    Variant,
    fill,
    mentions,
)

MAX_PROMPTS = 1024
LEAST_PROMPTS = 2
_TRIES = 300
"""Draws in a row that may fail before it is given up."""
MAX_CHARACTERS = 8_000
"""Of a prompt: it is tokenised once for each answer."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a template."""

    text: str
    corrupt_text: str | None
    variant: int
    case: Case
    good: tuple[str, ...]
    """Texts of the answers, as many as token ids in the metric."""
    bad: tuple[str, ...]
    roles: dict[str, tuple[int, ...]]
    """Positions of each role in the tokens, BOS counted."""


@dataclass(frozen=True)
class Rendered:
    """A template's prompts, all different."""

    prompts: list[Prompt]
    rejected: dict[str, int]
    """Draws that were refused, by reason."""


def render(template: Template, model: LanguageModel, *, n: int, seed: int = 0) -> Rendered:
    """Return what `rendering` does, at once."""
    return finish(rendering(template, model, n=n, seed=seed))


def rendering(
    template: Template, model: LanguageModel, *, n: int, seed: int = 0, max_tokens: int | None = None
) -> Steps[Rendered]:
    """Draw `n` different prompts; variants take turns. More prompts of one seed begin with the same ones.

    Where the slots allow fewer, there are fewer. A BOS is put in front if the model has one. Prompts of more
    than `max_tokens` (the model's context, if it is less or none is given) are not taken.

    Raises:
        BadTemplate: fewer than two prompts come out; the detail says what the draws failed by.
        OutOfRange: `n` is outside 2..1024.
    """
    if not LEAST_PROMPTS <= n <= MAX_PROMPTS:
        raise OutOfRange("n", f"{n} is outside {LEAST_PROMPTS}..{MAX_PROMPTS}")
    # No security rests on it; a seed must mean the same everywhere.
    generator = random.Random(f"{template.id}/{seed}")
    prompts: dict[str, Prompt] = {}
    rejected: Counter[str] = Counter()
    tries = 0
    limit = model.max_positions if max_tokens is None else min(max_tokens, model.max_positions)
    writer = _Writer(model, limit)
    while len(prompts) < n and tries < _TRIES:
        yield Progress(len(prompts), n, "prompts")
        try:
            prompt = _draw(template, writer, len(prompts) % len(template.variants), generator)
            if prompt.text in prompts:
                raise _Rejected("the prompt was drawn before")
            prompts[prompt.text] = prompt
            tries = 0
        except _Rejected as reason:
            rejected[str(reason)] += 1
            tries += 1
    if len(prompts) < LEAST_PROMPTS:
        reasons = "; ".join(f"{reason} ({count} times)" for reason, count in rejected.most_common(3))
        raise BadTemplate("template", f"gives {len(prompts)} prompts with this tokenizer: {reasons}")
    return Rendered(list(prompts.values()), dict(rejected.most_common()))


class _Rejected(Exception):
    """This draw does not do; the message says why, without the values drawn."""


@dataclass(frozen=True)
class _Writer:
    """Whose tokenizer, and how many tokens a prompt may have, BOS included."""

    model: LanguageModel
    max_tokens: int

    @property
    def bos(self) -> tuple[int, ...]:
        return () if self.model.bos_id is None else (self.model.bos_id,)

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, BOS left out, and which characters each stands for."""
        if len(text) > MAX_CHARACTERS:
            raise _Rejected(f"the prompt has more than {MAX_CHARACTERS} characters")
        encoded: Any = self.model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return encoded["input_ids"], encoded["offset_mapping"]


@dataclass(frozen=True)
class _Written:
    """A text with its tokens, BOS left out, and where the mentions are."""

    text: str
    ids: list[int]
    spans: list[tuple[Mention, tuple[int, ...]]]


def _draw(template: Template, writer: _Writer, variant: int, generator: random.Random) -> Prompt:
    values = {slot.name: generator.choice(slot.values) for slot in template.slots}
    chosen = template.variants[variant]
    _check_distinct(template.constraints, values)
    clean = _write(writer, chosen.text, values)
    tokens = (*writer.bos, *clean.ids)
    for constraint in template.constraints:
        _check_tokens(constraint, clean)
    good = _answers(chosen, values, (writer, clean), side="good")
    bad = _answers(chosen, values, (writer, clean), side="bad")
    if set(good.values()) & set(bad.values()):
        raise _Rejected("a good answer is a bad one as well")
    corrupt = _corrupt(template, writer, chosen, values, clean)
    case = Case(
        tokens,
        Metric(tuple(good.values()), tuple(bad.values())),
        None if corrupt is None else (*writer.bos, *corrupt.ids),
    )
    return Prompt(
        text=clean.text,
        corrupt_text=None if corrupt is None else corrupt.text,
        variant=variant,
        case=case,
        good=tuple(good),
        bad=tuple(bad),
        roles=_role_positions(template.roles, clean, first_counted(writer.model, tokens)),
    )


def _write(
    writer: _Writer,
    text: Pieces,
    values: Mapping[str, Value],
    replaced: Mapping[Mention, str] | None = None,
) -> _Written:
    written, ends = "", list[tuple[Mention, int, int]]()
    for piece in text:
        if isinstance(piece, str):
            written += piece
            continue
        value = (replaced or {}).get(piece, values[piece.slot][piece.field])
        ends.append((piece, len(written), len(written) + len(value)))
        written += value
    ids, offsets = writer.encode(written)
    if not ids:
        raise _Rejected("the prompt has no tokens")
    if len(writer.bos) + len(ids) > writer.max_tokens:
        raise _Rejected(f"the prompt has more than {writer.max_tokens} tokens")
    # Both never fall from token to token: the tokens that share a character with a span are neighbours.
    firsts, lasts = [first for first, _ in offsets], [last for _, last in offsets]
    spans = [
        (mention, tuple(range(bisect_right(lasts, start), bisect_left(firsts, stop))))
        for mention, start, stop in ends
    ]
    return _Written(written, ids, spans)


def _check_distinct(constraints: tuple[Constraint, ...], values: Mapping[str, Value]) -> None:
    for constraint in constraints:
        if constraint.kind != "distinct":
            continue
        drawn = [values[mention.slot][mention.field] for mention in constraint.mentions]
        if len(set(drawn)) < len(drawn):
            raise _Rejected(f"{_named(constraint)} does not hold")


def _check_tokens(constraint: Constraint, written: _Written) -> None:
    """Check a constraint on the tokens of all mentions that this wording has."""
    sizes = [
        len(covered)
        for wanted in constraint.mentions
        for mention, covered in written.spans
        if (mention.slot, mention.field) == (wanted.slot, wanted.field)
    ]
    if constraint.kind == "single_token" and any(size != 1 for size in sizes):
        raise _Rejected(f"{_named(constraint)} does not hold")
    if constraint.kind == "same_length" and len(set(sizes)) > 1:
        raise _Rejected(f"{_named(constraint)} does not hold")


def _named(constraint: Constraint) -> str:
    return f"{constraint.kind}({', '.join(mention.name for mention in constraint.mentions)})"


def _answers(
    variant: Variant, values: Mapping[str, Value], written: tuple[_Writer, _Written], *, side: str
) -> dict[str, int]:
    """Return text and token id of each answer on one side; each is one token behind the prompt."""
    writer, clean = written
    found: dict[str, int] = {}
    for answer in variant.good if side == "good" else variant.bad:
        texts = _digits(answer, values) if isinstance(answer, Digits) else [fill(answer, values)]
        for text in texts:
            if text in found:
                continue
            ids, _ = writer.encode(clean.text + text)
            if len(ids) != len(clean.ids) + 1 or ids[:-1] != clean.ids:
                name = "a digit" if isinstance(answer, Digits) else _pattern(answer)
                raise _Rejected(f"the {side} answer {name} is not one token behind the prompt")
            found[text] = ids[-1]
    if side == "good" and not found:
        raise _Rejected("there is no good answer")
    if side == "bad" and variant.bad and not found:
        raise _Rejected("there is no bad answer")
    if len(set(found.values())) < len(found):
        raise _Rejected(f"two {side} answers are the same token")
    return found


def _digits(answer: Digits, values: Mapping[str, Value]) -> list[str]:
    value = values[answer.mention.slot][answer.mention.field]
    if len(value) != 1 or not ("0" <= value <= "9"):
        raise _Rejected(f"{answer.mention.name} is not a digit")
    return [digit for digit in "0123456789" if (digit > value if answer.above else digit < value)]


def _pattern(answer: Pieces) -> str:
    return repr("".join(piece if isinstance(piece, str) else f"{{{piece.name}}}" for piece in answer))


def _corrupt(
    template: Template, writer: _Writer, variant: Variant, values: Mapping[str, Value], clean: _Written
) -> _Written | None:
    if not template.corrupt:
        return None
    replaced = {
        mention: fill(pieces, values)
        for mention in mentions(variant.text)
        for place, pieces in template.corrupt
        if place.covers(mention)
    }
    corrupt = _write(writer, variant.text, values, replaced)
    if corrupt.text == clean.text:
        raise _Rejected("the corrupt prompt is the same text")
    if len(corrupt.ids) != len(clean.ids):
        raise _Rejected("the corrupt prompt has another number of tokens")
    return corrupt


def _role_positions(roles: tuple[Role, ...], written: _Written, first: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for role in roles:
        if not role.places:
            found[role.name] = (len(written.ids) - 1 + first,)
            continue
        covered = {
            position + first
            for mention, positions in written.spans
            for place in role.places
            if place.covers(mention)
            for position in positions
        }
        if covered:
            found[role.name] = tuple(sorted(covered))
    return found
