"""What ablation, attribution and the search share: metrics in words, SAEs as dictionaries, their cost."""

from __future__ import annotations

from collections.abc import Sequence

from interpedia_engine.effects import Dictionary, Metric
from interpedia_engine.models.language_model import LanguageModel
from interpedia_inference.admission.cost import Cost
from interpedia_inference.refusals import outside
from interpedia_inference.shelf.held import HeldSAE
from interpedia_shared.contracts.live.effects import LogitMetric
from interpedia_shared.problems import Invalid


def resolve_metric(model: LanguageModel, wanted: LogitMetric, n_tokens: int) -> Metric:
    """Turn the answers into single tokens and check the position.

    Args:
        model: Whose tokenizer.
        wanted: From the request's field `metric`.
        n_tokens: Of the text.

    Raises:
        Invalid: an answer is not a single token (the detail says into what it is cut) or stands on both
            sides, or the position is outside the text.
    """
    good = _single_tokens(model, wanted.good, "#/metric/good")
    bad = _single_tokens(model, wanted.bad, "#/metric/bad")
    for number, token in enumerate(bad):
        if token in good:
            raise Invalid.field(f"#/metric/bad/{number}", f"{wanted.bad[number]!r} is in good as well")
    if wanted.position is not None and wanted.position >= n_tokens:
        raise outside(
            "#/metric/position", wanted.position, first=0, last=n_tokens - 1, of="the positions of the text"
        )
    return Metric(tuple(dict.fromkeys(good)), tuple(dict.fromkeys(bad)), wanted.position)


def answer_names(model: LanguageModel, wanted: LogitMetric) -> dict[int, str]:
    """Return the answers of a metric as they were written, by token id."""
    return {model.tokenize(answer)[0]: answer for answer in (*wanted.bad, *wanted.good)}


def dictionary_of(held: HeldSAE) -> Dictionary:
    """The SAE as the engine's effects take it."""
    return Dictionary(held.slug, held.sae, held.hook, held.hook_out)


def effect_cost(
    model: LanguageModel, n_tokens: int, saes: Sequence[HeldSAE], *, passes: int, has_gradient: bool = False
) -> Cost:
    """Estimate `passes` forward passes of a text (a backward pass counts as two) with codes and logits kept.

    With a gradient everything between the blocks is kept as well: some sixteen times the stream in each.
    """
    shape = model.shape
    kept = 2 * shape.d_vocab + 3 * sum(sae.sae.d_sae for sae in saes)
    if has_gradient:
        kept += 16 * shape.n_layers * shape.d_model
    return Cost(passes * n_tokens, 4 * n_tokens * kept)


def _single_tokens(model: LanguageModel, answers: Sequence[str], where: str) -> list[int]:
    ids: list[int] = []
    for number, answer in enumerate(answers):
        tokens = model.tokenize(answer)
        if len(tokens) != 1:
            pieces = ", ".join(repr(model.vocabulary.text([token])) for token in tokens[:8])
            detail = f"{answer!r} is {len(tokens)} tokens ({pieces}), an answer must be a single one"
            raise Invalid.field(f"{where}/{number}", detail, tokens=len(tokens))
        ids.append(tokens[0])
    return ids
