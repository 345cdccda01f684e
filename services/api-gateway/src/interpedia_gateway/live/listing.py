"""Which models are served live, summed up over their hosts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from interpedia_gateway.live.hosts import Host
from interpedia_gateway.live.schemas import ServedModel
from interpedia_shared.contracts.live.capabilities import LiveLimits

Stated = tuple[Host, str]


def served_models(hosts: Iterable[Stated]) -> list[ServedModel]:
    """One entry per model, by id."""
    by_model: dict[str, list[Stated]] = defaultdict(list)
    for host, state in hosts:
        by_model[host.model].append((host, state))
    return [_served(model, by_model[model]) for model in sorted(by_model)]


def _served(model: str, hosts: list[Stated]) -> ServedModel:
    ready = sorted(
        (host for host, state in hosts if state == "ready"), key=lambda host: (host.queue_depth, host.id)
    )
    told = (ready or [host for host, _ in hosts])[0].capabilities
    return ServedModel(
        model=model,
        ready=bool(ready),
        hosts=dict(sorted(Counter(state for _, state in hosts).items())),
        queue_depth=sum(host.queue_depth for host in ready),
        dtype=_text(told.get("dtype")),
        device=_text(told.get("device")),
        limits=_limits(told.get("limits")),
        detail=None if ready else _text(told.get("detail")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _limits(value: Any) -> LiveLimits | None:
    """Of a host of another version there may be none that we understand."""
    try:
        return LiveLimits.model_validate(value)
    except ValidationError:
        return None
