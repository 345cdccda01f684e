"""Writing activations as JSON, text by text: numbers go from the array to the bytes in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from interpedia_engine.hooks import Hook
from interpedia_inference.compute.contract import Floats, SparseValues
from interpedia_shared.contracts.live.activations import ActivationsRequest


@dataclass(frozen=True, slots=True)
class Row:
    """What was read on one text."""

    token_ids: list[int]
    tokens: list[str]
    columns: dict[tuple[str, int], Floats]
    """By SAE and feature: float32 [pos], NaN where ignored."""
    sparse: dict[str, SparseValues]
    directions: list[tuple[Hook, Floats]]


def write_rows(body: ActivationsRequest, rows: Sequence[Row]) -> list[bytes]:
    """Each text's part of the answer, an `ActivationsOnText` as JSON."""
    return [orjson.dumps(_row(body, row), option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]


def _row(body: ActivationsRequest, row: Row) -> dict[str, Any]:
    return {
        "tokens": row.tokens,
        "token_ids": row.token_ids,
        "features": [
            {
                "ref": f"{body.model}/{at.sae}/{at.feature}",
                "model": body.model,
                "sae": at.sae,
                "index": at.feature,
                **_values(row.columns[at.sae, at.feature], row.tokens, is_silent_at_zero=True),
            }
            for at in body.features
        ],
        "vectors": [
            {
                "vector": number,
                "hook": hook.name,
                **_values(values, row.tokens, is_silent_at_zero=False),
            }
            for number, (hook, values) in enumerate(row.directions)
        ],
        "saes": [
            {
                "sae": slug,
                "positions": np.ascontiguousarray(found.position),
                "features": np.ascontiguousarray(found.feature),
                "values": np.ascontiguousarray(found.value),
            }
            for slug, found in row.sparse.items()
        ],
    }


def _values(values: Floats, tokens: Sequence[str], *, is_silent_at_zero: bool) -> dict[str, Any]:
    """Values with their maximum; a feature that is nowhere active has a maximum of 0 and no place for it."""
    written = np.ascontiguousarray(values)
    counted = np.flatnonzero(~np.isnan(values))
    if len(counted) == 0:
        return {"values": written, "max": None, "max_position": None, "max_token": None}
    best = int(counted[np.argmax(values[counted])])
    top = float(values[best])
    if is_silent_at_zero and not values[counted].any():
        return {"values": written, "max": 0.0, "max_position": None, "max_token": None}
    return {"values": written, "max": top, "max_position": best, "max_token": tokens[best]}
