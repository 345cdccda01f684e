"""What an explainer claims about a feature, in a form that can be tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interpedia_autointerp.explainers.rules import Rule, rule_from_json

Role = Literal["input", "output", "both"]
"""`input`: what makes it fire. `output`: what it makes the model say. Never scored in one number."""
Trigger = Literal["token", "phrase", "topic", "position", "format", "other"]
Position = Literal["at", "before", "after", "next"]
"""Where the feature fires: at the thing itself, before it, after it, or where it is about to be said."""
ROLES, TRIGGERS, POSITIONS = get_args(Role), get_args(Trigger), get_args(Position)

MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One explanation.

    Attributes:
        text: what is shown and judged; one sentence, up to MAX_TEXT characters when an explainer made it.
        confidence: the explainer's own, 0 to 1; None where it has none.
        no_pattern: the explainer found nothing that the examples share. `text` then says so.
        rule: executable form, where there is one; only the rule scorer runs it.
        sign: -1 for the negative side of a neuron.
    """

    text: str
    role: Role = "input"
    trigger: Trigger = "other"
    position: Position = "at"
    confidence: float | None = None
    no_pattern: bool = False
    rule: Rule | None = None
    sign: int = 1

    def to_json(self) -> dict[str, Any]:
        """As it is stored in `explanation.hypothesis`; the text is in there too."""
        return {
            "text": self.text,
            "role": self.role,
            "trigger": self.trigger,
            "position": self.position,
            "confidence": self.confidence,
            "no_pattern": self.no_pattern,
            "rule": None if self.rule is None else self.rule.to_json(),
            "sign": self.sign,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Hypothesis:
        """Read what `to_json` wrote; what is missing, as in a person's explanation, has its default."""
        known: dict[str, Any] = {name: value[name] for name in cls.__slots__ if name in value}
        rule = value.get("rule")
        known["rule"] = None if rule is None else rule_from_json(rule)
        return cls(**known)
