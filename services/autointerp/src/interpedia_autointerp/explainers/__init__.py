"""From a task's material to hypotheses, with an LLM or by counting."""

from interpedia_autointerp.explainers.hypothesis import MAX_TEXT, Hypothesis
from interpedia_autointerp.explainers.method import Explained, Explainer, How, Params, Prompt
from interpedia_autointerp.explainers.params import NotReady, params_of, ready
from interpedia_autointerp.explainers.registry import EXPLAINERS
from interpedia_autointerp.explainers.rules import Rule, rule_from_json

__all__ = [
    "EXPLAINERS",
    "MAX_TEXT",
    "Explained",
    "Explainer",
    "How",
    "Hypothesis",
    "NotReady",
    "Params",
    "Prompt",
    "Rule",
    "params_of",
    "ready",
    "rule_from_json",
]
