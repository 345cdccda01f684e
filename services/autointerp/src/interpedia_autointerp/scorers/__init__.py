"""From an explanation to verdicts, and from verdicts to numbers that say how far they can be trusted."""

from interpedia_autointerp.scorers.cost import TokenCost, feature_cost
from interpedia_autointerp.scorers.judging import MAX_JUDGED, TooLong
from interpedia_autointerp.scorers.method import (
    Ask,
    Basis,
    EmbedAsk,
    LLMAsk,
    Needs,
    Refused,
    Round,
    Scorer,
    SteerAsk,
)
from interpedia_autointerp.scorers.registry import SCORERS
from interpedia_autointerp.scorers.rule import NoRule
from interpedia_autointerp.scorers.running import (
    Answerer,
    Judged,
    LiveAnswerer,
    expected_requests,
    judge,
    scored,
    unready,
)
from interpedia_autointerp.scorers.shuffle import partner
from interpedia_autointerp.scorers.verdict import ScoreValue, State, Subject, Verdict

__all__ = [
    "MAX_JUDGED",
    "SCORERS",
    "Answerer",
    "Ask",
    "Basis",
    "EmbedAsk",
    "Judged",
    "LLMAsk",
    "LiveAnswerer",
    "Needs",
    "NoRule",
    "Refused",
    "Round",
    "ScoreValue",
    "Scorer",
    "State",
    "SteerAsk",
    "Subject",
    "TokenCost",
    "TooLong",
    "Verdict",
    "expected_requests",
    "feature_cost",
    "judge",
    "partner",
    "scored",
    "unready",
]
