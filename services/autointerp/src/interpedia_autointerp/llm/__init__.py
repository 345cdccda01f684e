"""Calls to OpenAI-compatible endpoints: probed, limited, retried, paid for once and within a budget."""

from interpedia_autointerp.llm.answer import Failure, FailureKind, LLMAnswer, TokenLogprob, Usage
from interpedia_autointerp.llm.budget import BudgetState, create_budget, read_budget
from interpedia_autointerp.llm.caller import Caller
from interpedia_autointerp.llm.capabilities import Capabilities, Need, require
from interpedia_autointerp.llm.errors import BudgetExhausted, JobPaused, QuotaExhausted
from interpedia_autointerp.llm.estimate import Estimate
from interpedia_autointerp.llm.request import (
    AnyRequest,
    JSONFormat,
    LLMRequest,
    Message,
    PromptScoreRequest,
    Sampling,
)
from interpedia_autointerp.llm.settings import EndpointSettings, LLMSettings, load_llm_settings

__all__ = [
    "AnyRequest",
    "BudgetExhausted",
    "BudgetState",
    "Caller",
    "Capabilities",
    "EndpointSettings",
    "Estimate",
    "Failure",
    "FailureKind",
    "JSONFormat",
    "JobPaused",
    "LLMAnswer",
    "LLMRequest",
    "LLMSettings",
    "Message",
    "Need",
    "PromptScoreRequest",
    "QuotaExhausted",
    "Sampling",
    "TokenLogprob",
    "Usage",
    "create_budget",
    "load_llm_settings",
    "read_budget",
    "require",
]
