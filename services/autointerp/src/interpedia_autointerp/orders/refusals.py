"""What orders of all kinds are refused with."""

from __future__ import annotations

from interpedia_shared.problems import (
    EndpointFailed,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    MissingCapability,
    NotFound,
    Problem,
    Unauthorized,
    Unavailable,
)

REFUSALS: tuple[type[Problem], ...] = (
    Unauthorized,
    Forbidden,
    NotFound,
    IdempotencyMismatch,
    Invalid,
    MissingCapability,
    EndpointFailed,
    Unavailable,
)
