"""Model files from the Hugging Face hub, at one commit."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from interpedia_engine.errors import ModelLoadFailed, UnknownModel
from interpedia_engine.models.source import ModelSource

WANTED_FILES = ["*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt"]
_UNWANTED_FILES = ["*/*", "original/*", "onnx/*"]


def hub_snapshot(source: ModelSource, cache_dir: Path) -> Path:
    """Return a folder with the configuration, tokenizer and safetensors of a `hub` source.

    The files are downloaded once and found in the cache afterwards, also without a network. Only data files
    are asked for: no pickles, no Python.

    Raises:
        UnknownModel: the hub has no such repository or commit.
        ModelLoadFailed: the hub cannot be reached and the files are not in the cache.
    """
    try:
        return _download(source, cache_dir, is_offline=True)
    except LocalEntryNotFoundError:
        pass
    try:
        return _download(source, cache_dir, is_offline=False)
    except RepositoryNotFoundError as error:
        raise UnknownModel(
            "source.repo", f"the hub has no repository {source.repo!r}, or it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise UnknownModel("source.revision", f"{source.repo!r} has no commit {source.revision}") from error
    except HfHubHTTPError as error:
        raise ModelLoadFailed("source", f"the hub refused {source.label}") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ModelLoadFailed(
            "source", f"{source.label} is not in the cache and the hub cannot be reached"
        ) from error


def _download(source: ModelSource, cache_dir: Path, *, is_offline: bool) -> Path:
    return Path(
        snapshot_download(
            repo_id=source.repo or "",
            revision=source.revision,
            cache_dir=cache_dir / "hub",
            allow_patterns=WANTED_FILES,
            ignore_patterns=_UNWANTED_FILES,
            local_files_only=is_offline,
        )
    )
