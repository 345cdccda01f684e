"""Settings of the inference service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from interpedia_shared.ids import Slug
from interpedia_shared.settings import ServiceSettings

MIB = 1 << 20
GIB = 1 << 30


class InferenceSettings(ServiceSettings):
    """What every service has, the model that this host serves, and how much of it one may ask for."""

    max_body_bytes: PositiveInt = Field(
        default=4 * MIB, description="Largest request body taken: parsing it keeps everybody else waiting."
    )
    port: int = Field(default=8001, ge=1, le=65535, description="Port to listen on.")
    advertise_url: str | None = Field(
        default=None, description="Where the gateway reaches this host; by default host and port."
    )
    heartbeat_s: PositiveFloat = Field(default=2.0, description="Time between two entries in the registry.")

    model: Slug | None = Field(
        default=None, description="Id of the model served; the host waits until it is registered."
    )
    model_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Of the model's weights."
    )
    device: str = Field(default="cpu", description="Torch device of model and SAEs.")
    device_map: str | None = Field(
        default=None,
        description="Spread one model over devices, e.g. `auto`; replaces `device` for the model.",
    )
    torch_threads: PositiveInt = Field(default=2, description="Threads of one operation on a CPU.")
    max_sae_bytes: PositiveInt = Field(
        default=4 * GIB, description="SAEs kept loaded; those not in use are let go of first."
    )

    max_queue: PositiveInt = Field(default=128, description="Requests waiting or running; more get 429.")
    max_queue_tokens: PositiveInt = Field(
        default=65_536, description="Tokens of all requests waiting or running; more get 429."
    )
    max_memory_bytes: PositiveInt = Field(
        default=4 * GIB, description="Estimated memory of all requests waiting or running."
    )
    max_request_tokens: PositiveInt = Field(default=16_384, description="Tokens of one request.")
    max_text_tokens: PositiveInt = Field(
        default=4_096,
        description="Tokens of one text, which is one uninterrupted pass; at most the model's context.",
    )
    max_effect_tokens: PositiveInt = Field(
        default=1_024,
        description="Tokens of a text that is ablated, attributed or searched: several whole passes, one of "
        "them backwards.",
    )
    max_search_bytes: PositiveInt = Field(
        default=1 * GIB, description="Estimated memory of the prompt search that runs, beside the requests'."
    )
    max_new_tokens: PositiveInt = Field(default=1_024, description="Generated tokens of one output.")
    max_answer_values: PositiveInt = Field(default=2_000_000, description="Numbers in one answer.")
    deadline_s: PositiveFloat = Field(
        default=60.0, description="Longest time of a request that gives none of its own."
    )

    max_batch_tokens: PositiveInt = Field(
        default=1024, description="Tokens, padding included, of one forward pass of several texts."
    )
    batch_overhead_tokens: NonNegativeInt = Field(
        default=16, description="What starting a forward pass costs, in tokens of running it."
    )
    max_prompt_tokens: PositiveInt = Field(
        default=128,
        description="Tokens of prompts, about, run between two tokens of outputs that are being generated.",
    )
    max_rows: PositiveInt = Field(default=16, description="Outputs generated at the same time.")
    max_cache_tokens: PositiveInt = Field(
        default=16_384, description="Positions of the key-value cache, over all outputs."
    )
    activation_cache_bytes: NonNegativeInt = Field(
        default=64 * MIB, description="Captured activations kept for texts that are asked for again."
    )

    def public_url(self) -> str:
        """Where others reach this host."""
        return self.advertise_url or f"http://{self.host}:{self.port}"
