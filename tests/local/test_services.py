"""What the launcher tells its children."""

from __future__ import annotations

from pathlib import Path

from interpedia_local import demo
from interpedia_local.services import SERVED_MODEL, Ports, shared_environment
from interpedia_local.settings import LocalSettings


def environment(**inherited: str) -> dict[str, str]:
    return shared_environment(
        LocalSettings(inherited=inherited),
        database_url="postgresql://x",
        data_dir=Path("var"),
        ports=Ports(),
        torch_threads=None,
    )


def test_inference_serves_the_demo_model_unless_told_otherwise() -> None:
    assert SERVED_MODEL == demo.MODEL
    assert environment()["INTERPEDIA_MODEL"] == SERVED_MODEL
    assert environment(INTERPEDIA_MODEL="gpt2-small")["INTERPEDIA_MODEL"] == "gpt2-small"
