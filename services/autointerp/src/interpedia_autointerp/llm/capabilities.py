"""What an endpoint can do, as probing found out; and the refusal of methods that need more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from interpedia_shared.problems import MissingCapability

Need = Literal[
    "chat", "json_schema", "json", "chat_logprobs", "prompt_logprobs", "seed", "temperature", "usage"
]
"""What a method may ask for. Structured output alone needs nothing: plain text is read tolerantly."""

PromptStyle = Literal["echo", "vllm"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was found, each by trying.

    Attributes:
        json_schema: `response_format` of this type is taken and enforced (a control asks for something else).
        json_object: `response_format` of this type is taken and gives JSON.
        chat_logprobs: most alternatives with a generated token; 0: no logprobs.
        prompt_logprobs: how `/completions` scores a given text; None: it does not.
        prompt_top: most alternatives with a token of a given text.
        max_tokens_field: how the cap on the answer is called.
        usage: answers tell their tokens.
        how: for each of the above, in a few words, what the endpoint did.
    """

    json_schema: bool = False
    json_object: bool = False
    chat_logprobs: int = 0
    prompt_logprobs: PromptStyle | None = None
    prompt_top: int = 0
    seed: bool = False
    temperature: bool = False
    usage: bool = False
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    reported_model: str | None = None
    system_fingerprint: str | None = None
    how: Mapping[str, str] = field(default_factory=dict[str, str])

    def has(self, need: Need) -> bool:
        """Whether a method with this need may run."""
        match need:
            case "chat":
                return True
            case "json":
                return self.json_schema or self.json_object
            case "chat_logprobs":
                return self.chat_logprobs > 0
            case "prompt_logprobs":
                return self.prompt_logprobs is not None
            case _:
                return bool(getattr(self, need))

    def to_json(self) -> dict[str, Any]:
        """As it is kept in `llm_endpoint.capabilities`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Capabilities:
        """Read what `to_json` wrote; members of other versions are passed over."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: found for name, found in value.items() if name in known})


def require(capabilities: Capabilities, needs: Sequence[Need], *, method: str, endpoint: str) -> None:
    """Return when the endpoint has all that the method needs.

    Raises:
        MissingCapability: it lacks something; the problem names each and what the endpoint did when probed.
    """
    missing = [need for need in needs if not capabilities.has(need)]
    if missing:
        raise MissingCapability(
            method, endpoint, {need: capabilities.how.get(need, "not found by probing") for need in missing}
        )
