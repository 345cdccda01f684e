"""Reconstruction, firing and baseline statistics of one SAE on cached activations."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from demo_activations import batches
from demo_sae import TopKSae
from torch import Tensor
from torch.nn import functional

CHUNK = 4096
Reconstruct = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval from a bootstrap over documents."""

    value: float
    low: float
    high: float


def bootstrap(numerator: Tensor, denominator: Tensor, document: Tensor, draws: int = 2000) -> Interval:
    """Ratio of sums, with an interval that resamples whole documents.

    Tokens of one document are alike, so resampling tokens would look far too certain.

    Args:
        numerator: Shape (items,), float64.
        denominator: Shape (items,), float64.
        document: Owner of each item, int64, shape (items,).
        draws: Bootstrap resamples.
    """
    _, owner = document.unique(return_inverse=True)
    count = int(owner.max()) + 1
    top = torch.zeros(count, dtype=torch.float64).index_add_(0, owner, numerator)
    bottom = torch.zeros(count, dtype=torch.float64).index_add_(0, owner, denominator)
    random = torch.Generator().manual_seed(0)
    picks = torch.randint(count, (draws, count), generator=random)
    ratios = top[picks].sum(1) / bottom[picks].sum(1)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval((top.sum() / bottom.sum()).item(), low, high)


def in_chunks(x: Tensor, reconstruct: Reconstruct) -> Tensor:
    """Applies a reconstruction to (tokens, d_in) without a (tokens, d_sae) intermediate."""
    return torch.cat([reconstruct(x[part]) for part in batches(0, len(x), CHUNK)])


def square_sums(x: Tensor) -> Tensor:
    """Squared norm of each row, float64, shape (tokens,)."""
    return x.square().sum(dim=1, dtype=torch.float64)


def r_squared(x: Tensor, guess: Tensor) -> float:
    """1 - sum |x - guess|^2 / sum |x - mean(x)|^2: sums over all tokens, not a mean of ratios."""
    spread = square_sums(x - x.mean(dim=0)).sum()
    return (1 - square_sums(x - guess).sum() / spread).item()


def geometry(x: Tensor, guess: Tensor, document: Tensor) -> dict[str, float | dict[str, float]]:
    """Describes reconstructions `guess` of tokens `x`, both (tokens, d_in)."""
    mean = x.mean(dim=0)
    missed, spread = square_sums(x - guess), square_sums(x - mean)
    unexplained = bootstrap(missed, spread, document)
    return {
        "r2": 1 - unexplained.value,
        "r2_ci95": {"low": 1 - unexplained.high, "high": 1 - unexplained.low},
        "cosine": functional.cosine_similarity(x, guess).mean().item(),
        "cosine_centred": functional.cosine_similarity(x - mean, guess - mean).mean().item(),
        "mse_sum_over_dims": missed.mean().item(),
        "norm_ratio": (guess.norm(dim=1) / x.norm(dim=1)).mean().item(),
        "relative_reconstruction_bias": (
            square_sums(guess).sum() / (x * guess).sum(dtype=torch.float64)
        ).item(),
    }


def pca_r_squared(train: Tensor, x: Tensor, components: int = 32) -> float:
    """R² on `x` of the training tokens' leading principal components (float16 `train`)."""
    mean = torch.zeros(x.shape[1], dtype=torch.float64)
    square = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in batches(0, len(train), CHUNK):
        rows = train[part].float()
        mean += rows.sum(dim=0, dtype=torch.float64)
        square += (rows.T @ rows).double()
    mean /= len(train)
    vectors = torch.linalg.eigh(square / len(train) - torch.outer(mean, mean)).eigenvectors
    basis, centre = vectors[:, -components:].float(), mean.float()
    return r_squared(x, (x - centre) @ basis @ basis.T + centre)


def random_dictionary_r_squared(x: Tensor, width: int, k: int, seed: int = 0) -> float:
    """R² of a random tied TopK dictionary around the mean of `x`, with its best global gain.

    Gain and mean are fitted on the very tokens that are scored, in the baseline's favour.
    """
    random = torch.Generator().manual_seed(seed)
    rows = functional.normalize(torch.randn(width, x.shape[1], generator=random), dim=1)
    zero = torch.zeros(x.shape[1])
    sae = TopKSae(rows.T.contiguous(), torch.zeros(width), rows, zero, k)
    centred = x - x.mean(dim=0)
    guess = in_chunks(centred, sae.reconstruct)
    gain = (centred * guess).sum(dtype=torch.float64) / square_sums(guess).sum()
    return r_squared(centred, guess * gain.float())


@dataclass
class Firing:
    """Counts firings token by token; one pass over a corpus fills it.

    Attributes:
        counts: Tokens each latent fired on, int64, shape (d_sae,).
        active: Active latents per token (L0), one int64 tensor a chunk.
    """

    counts: Tensor
    active: list[Tensor] = field(default_factory=list[Tensor])

    def add(self, values: Tensor, indices: Tensor) -> None:
        """Adds one chunk's codes, both of shape (tokens, k)."""
        on = values > 0
        self.counts += torch.bincount(indices[on], minlength=len(self.counts))
        self.active.append(on.sum(dim=1))

    @property
    def tokens(self) -> int:
        """Tokens seen."""
        return sum(len(part) for part in self.active)

    def l0(self) -> dict[str, float]:
        """Mean and percentiles of active latents per token."""
        active = torch.cat(self.active).double()
        p5, p50, p95 = torch.quantile(
            active[:: max(1, len(active) // 1_000_000)],
            torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64),
        ).tolist()
        return {"mean": active.mean().item(), "p5": p5, "p50": p50, "p95": p95}

    def density(self) -> dict[str, float | dict[str, int]]:
        """Firing frequencies: shares of latents that never, often or very often fire."""
        share = self.counts.double() / self.tokens
        dense = share > 0.1
        exponent = share[share > 0].log10().floor().long()
        bins, sizes = exponent.unique(return_counts=True)
        return {
            "tokens": self.tokens,
            "never_firing": (share == 0).double().mean().item(),
            "above_1_percent": (share > 0.01).double().mean().item(),
            "above_10_percent": dense.double().mean().item(),
            "firings_share_of_above_10_percent": (self.counts[dense].sum() / self.counts.sum()).item(),
            "median": share.median().item(),
            "latents_by_log10_density_floor": {
                str(low): size for low, size in zip(bins.tolist(), sizes.tolist(), strict=True)
            },
        }
