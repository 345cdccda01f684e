"""The committed description of the public API is the one the code gives; `make openapi` writes it anew."""

from __future__ import annotations

from pathlib import Path

from interpedia_gateway.openapi import rendered

COMMITTED = Path(__file__).parents[2] / "docs/openapi.json"


def test_the_committed_description_is_the_codes() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == rendered(), "run `make openapi`"
