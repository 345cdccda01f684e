"""Reading a folder of Hugging Face files: the one place where transformers' loaders are called."""

from __future__ import annotations

import re
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from interpedia_engine.errors import ModelLoadFailed
from interpedia_engine.layouts import layout_of

_LOAD_ERRORS = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError),
    *(struct.error, SafetensorError),
)
"""What transformers and its readers raise on files that are not what they should be."""


def read_checkpoint(
    folder: Path, dtype: torch.dtype, *, gguf_file: str | None = None, device_map: str | None = None
) -> tuple[Any, Any, Any]:
    """Return configuration, model and fast tokenizer of a folder.

    Only safetensors (or the GGUF file named) are read, no code of theirs is run, nothing is fetched.

    Raises:
        ModelLoadFailed: the files are malformed, or lack weights of the model, which transformers would fill
            with random numbers.
        UnsupportedArchitecture: there is no layout for the model.
    """
    arguments: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    arguments |= {"gguf_file": gguf_file} if gguf_file else {}
    what = gguf_file or folder.name
    with _translated(
        f"{what} cannot be read as a {'GGUF model' if gguf_file else 'model with a fast tokenizer'}"
    ):
        config: Any = AutoConfig.from_pretrained(str(folder), **arguments)
        layout_of(str(config.model_type))
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), use_fast=True, **arguments)
        arguments |= {} if gguf_file else {"use_safetensors": True}
        arguments |= {} if device_map is None else {"device_map": device_map}
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), config=config, dtype=dtype, output_loading_info=True, **arguments
        )
        model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelLoadFailed(
            "source", f"the weights of {what} lack {len(missing)} tensor(s), e.g. {missing[0]}"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ModelLoadFailed("tokenizer", "only fast tokenizers are supported")
    return config, model, tokenizer


@contextmanager
def _translated(detail: str) -> Generator[None]:
    # transformers draws progress bars on stderr, where services write their logs.
    transformers_logging.disable_progress_bar()
    try:
        yield
    except _LOAD_ERRORS as error:
        package = re.search(r"pip install (\w[\w.-]*)", str(error))
        reason = f": the package {package.group(1)} is not installed here" if package else ""
        raise ModelLoadFailed("source", detail + reason) from error
