"""The modules that run where no model is loaded do not import torch."""

import subprocess
import sys

TORCH_FREE = (
    "interpedia_engine",
    "interpedia_engine.errors",
    "interpedia_engine.hooks",
    "interpedia_engine.models",
    "interpedia_engine.models.source",
    "interpedia_engine.saes",
    "interpedia_engine.saes.config",
    "interpedia_engine.saes.files",
    "interpedia_engine.saes.header",
    "interpedia_engine.tokens",
)


# Whoever asks for torch ends the process at once: quicker than to import it, and seen even where a failure
# to import it would be forgiven.
GUARD = """
import os, sys
class Guard:
    def find_spec(name, *_):
        if name.split(".")[0] == "torch":
            os._exit(3)
sys.meta_path.insert(0, Guard)
"""


def _imports_torch(statement: str) -> bool:
    status = subprocess.run([sys.executable, "-c", f"{GUARD}\n{statement}"], check=False).returncode
    assert status in (0, 3)
    return status == 3


def test_they_import_no_torch():
    assert not _imports_torch(f"import {', '.join(TORCH_FREE)}")


def test_the_check_would_see_it():
    assert _imports_torch("import interpedia_engine.masking")


def test_names_that_need_torch_come_when_asked():
    from interpedia_engine import models, saes

    assert callable(models.load_model)
    assert callable(models.self_check)
    assert callable(saes.load_sae)
    for package in (models, saes):
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert not hasattr(package, "no_such_name")
