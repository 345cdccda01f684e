"""Which sources of models are allowed: an administrator's key must not read the whole disk either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interpedia_engine.errors import EngineError
from interpedia_engine.models import ModelSource
from interpedia_ingest.refusals import refuse, refuse_engine
from interpedia_shared.problems import BadModel


def allowed_source(fields: Mapping[str, Any], model_dirs: Sequence[Path]) -> ModelSource:
    """Read a source; a local path must lie under one of `model_dirs`, links followed.

    Raises:
        BadModel: it is malformed, or the path is not allowed.
    """
    try:
        source = ModelSource.from_dict(fields)
    except EngineError as error:
        raise refuse_engine(BadModel, "#/source", error) from error
    if source.kind != "local":
        return source
    path = Path(source.path or "").resolve()
    if not any(path.is_relative_to(folder.resolve()) for folder in model_dirs):
        raise refuse(
            BadModel,
            "#/source/path",
            "is not under a folder that this server allows (INTERPEDIA_MODEL_DIRS)",
        )
    if not path.is_dir():
        raise refuse(BadModel, "#/source/path", "there is no such folder")
    return ModelSource(kind="local", path=str(path))


def shown_source(source: ModelSource) -> dict[str, str]:
    """A source as the API may show it: of a local folder only the last part."""
    if source.kind == "local":
        return {"kind": "local", "folder": source.label}
    return source.to_dict()
