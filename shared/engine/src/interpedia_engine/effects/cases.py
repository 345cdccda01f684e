"""What effects are measured on: dictionaries at hooks, and prompts with a metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from interpedia_engine.errors import OutOfRange, WidthMismatch
from interpedia_engine.hooks import Hook, hook_width
from interpedia_engine.models.language_model import LanguageModel
from interpedia_engine.saes.base import SAE


@dataclass(frozen=True, eq=False)
class Dictionary:
    """An SAE by name, with where it is read and where it is written."""

    name: str
    sae: SAE
    hook: Hook
    hook_out: Hook | None = None
    """None = `hook`; another one for transcoders."""

    @property
    def written(self) -> Hook:
        """Where its features act."""
        return self.hook_out or self.hook


class FeatureKey(NamedTuple):
    """A feature of one of several dictionaries."""

    dictionary: int
    """Place in the sequence of dictionaries that was given."""
    feature: int


@dataclass(frozen=True)
class Metric:
    """logsumexp of the logits of `good` minus that of `bad` at one position; without `bad` the first."""

    good: tuple[int, ...]
    bad: tuple[int, ...] = ()
    position: int | None = None
    """Whose next token; None = the last."""


@dataclass(frozen=True)
class Case:
    """A prompt (token ids, BOS included) and what is read on it."""

    tokens: tuple[int, ...]
    metric: Metric
    corrupt: tuple[int, ...] | None = None
    """A prompt of as many tokens in which the answer is another; for patching."""

    @property
    def position(self) -> int:
        """Where the metric is read, from 0."""
        return len(self.tokens) - 1 if self.metric.position is None else self.metric.position


def check_tokens(model: LanguageModel, tokens: tuple[int, ...], field: str = "tokens") -> None:
    """Check token ids against the model.

    Raises:
        OutOfRange: there are none, too many, or one outside the vocabulary.
    """
    if not 1 <= len(tokens) <= model.max_positions:
        raise OutOfRange(field, f"1 to {model.max_positions} tokens are needed, not {len(tokens)}")
    wrong = next((token for token in tokens if not 0 <= token < model.shape.d_vocab), None)
    if wrong is not None:
        raise OutOfRange(field, f"token id {wrong} is outside 0..{model.shape.d_vocab - 1}")


def check_case(model: LanguageModel, case: Case) -> None:
    """Check a prompt and its metric against the model.

    Raises:
        OutOfRange: a token id or the position is outside its range, an answer is missing or on both sides, or
            the corrupt prompt is of another length.
    """
    check_tokens(model, case.tokens)
    check_metric(model, case.metric, len(case.tokens))
    if case.corrupt is not None:
        check_tokens(model, case.corrupt, "corrupt")
        if len(case.corrupt) != len(case.tokens):
            raise OutOfRange(
                "corrupt", f"has {len(case.corrupt)} tokens, but the prompt has {len(case.tokens)}"
            )


def check_metric(model: LanguageModel, metric: Metric, n_positions: int) -> None:
    """Check a metric against the model and a prompt's length.

    Raises:
        OutOfRange: see `check_case`.
    """
    if not metric.good:
        raise OutOfRange("metric.good", "at least one token is needed")
    for field, ids in (("metric.good", metric.good), ("metric.bad", metric.bad)):
        wrong = next((token for token in ids if not 0 <= token < model.shape.d_vocab), None)
        if wrong is not None:
            raise OutOfRange(field, f"token id {wrong} is outside 0..{model.shape.d_vocab - 1}")
    both = sorted(set(metric.good) & set(metric.bad))
    if both:
        raise OutOfRange("metric.bad", f"token id {both[0]} is in good as well")
    if metric.position is not None and not 0 <= metric.position < n_positions:
        raise OutOfRange("metric.position", f"{metric.position} is outside 0..{n_positions - 1}")


def check_dictionary(model: LanguageModel, dictionary: Dictionary) -> None:
    """Check that a dictionary fits its hooks.

    Raises:
        WidthMismatch: it reads or writes another width than its hook has.
    """
    sae = dictionary.sae
    for hook, width, verb in (
        (dictionary.hook, sae.d_in, "reads"),
        (dictionary.written, sae.d_out, "writes"),
    ):
        expected = hook_width(hook, model.shape)
        if width != expected:
            raise WidthMismatch(
                "sae", f"{dictionary.name} {verb} width {width}, but {hook.name} has {expected}"
            )


def check_feature(dictionary: Dictionary, feature: int) -> None:
    """Check a feature index.

    Raises:
        OutOfRange: the dictionary has no such feature.
    """
    if not 0 <= feature < dictionary.sae.d_sae:
        raise OutOfRange(
            "feature", f"{feature} is outside 0..{dictionary.sae.d_sae - 1} of {dictionary.name}"
        )


def first_counted(model: LanguageModel, tokens: tuple[int, ...]) -> int:
    """Return the first position at which features are read and changed: 1 behind a BOS, else 0."""
    return int(model.bos_id is not None and tokens[:1] == (model.bos_id,))
