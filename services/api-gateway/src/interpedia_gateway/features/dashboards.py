"""Put a dashboard together from a row of `feature`, the contexts it points into and its version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interpedia_gateway.catalogue.lookup import SAEPlace, VersionPlace
from interpedia_gateway.catalogue.service import shown_provenance, shown_source
from interpedia_gateway.explanations.shown import NOTHING_SAID, Said, said_of
from interpedia_gateway.features import rendering
from interpedia_gateway.features.repository import ContextRow, FeatureRow, contexts
from interpedia_gateway.features.schemas import CorpusUsed, Dashboard, ProvenanceOut
from interpedia_gateway.snippets.reproduce import Recipe, TopActivation, reproduce
from interpedia_gateway.vocabulary import Words
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.provenance import BuildProvenance
from interpedia_shared.dashboards import Examples, FeatureStats, decode_examples, decode_stats
from interpedia_shared.db.session import ReadSession

Decoded = tuple[FeatureRow, FeatureStats, Examples]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all dashboards of one version share, for one caller."""

    place: SAEPlace
    version: VersionPlace
    words: Words
    caller: Caller | None
    base_url: str


async def dashboards(session: ReadSession, setting: Setting, rows: Iterable[FeatureRow]) -> list[Dashboard]:
    """Dashboards in the order of the rows, with one read for all their contexts.

    Decoding and rendering take milliseconds each: in a thread, or other requests would wait for them.
    """
    decoded = await asyncio.to_thread(_decode, list(rows))
    wanted = {int(context) for _, _, kept in decoded for context in kept.contexts}
    wanted |= {row.peak_context for row, _, _ in decoded if row.peak_context is not None}
    found = await contexts(session, setting.version.corpus, wanted)
    said = await said_of(session, setting.place.id, [row.idx for row, _, _ in decoded])
    return await asyncio.to_thread(render, setting, decoded, found, said)


def _decode(rows: Sequence[FeatureRow]) -> list[Decoded]:
    return [(row, decode_stats(row.stats), decode_examples(row.examples)) for row in rows]


def render(
    setting: Setting,
    decoded: Sequence[Decoded],
    found: Mapping[int, ContextRow],
    said: Mapping[int, Said],
) -> list[Dashboard]:
    """Dashboards of decoded rows; no I/O, for a thread."""
    provenance = provenance_of(setting.place, setting.version, setting.caller)
    return [
        _dashboard(setting, one, found, provenance, said.get(one[0].idx, NOTHING_SAID)) for one in decoded
    ]


def _dashboard(
    setting: Setting,
    decoded: Decoded,
    found: Mapping[int, ContextRow],
    provenance: ProvenanceOut,
    said: Said,
) -> Dashboard:
    row, stats, kept = decoded
    place, words = setting.place, setting.words
    return Dashboard(
        **rendering.name_of(place, row.idx),  # pyright: ignore[reportArgumentType]
        alive=row.n_active_tokens > 0,
        density=row.density,
        n_active_tokens=row.n_active_tokens,
        n_active_contexts=stats.n_active_contexts,
        max_activation=row.max_activation,
        min_activation=stats.min_activation,
        moments=rendering.moments(stats),
        activation_histogram=rendering.histogram(stats.activation_histogram),
        intervals=rendering.interval_counts(stats),
        logit_histogram=rendering.histogram(stats.logit_histogram),
        top_logits=rendering.effects(stats.top_logits, words),
        bottom_logits=rendering.effects(stats.bottom_logits, words),
        peak_tokens=rendering.tokens(row.peak_token_ids, words),
        nearest=rendering.nearest(place, stats),
        coactive=rendering.coactive(place, stats),
        examples=rendering.examples(kept, found, words, rendering.largest(stats)),
        explanation=said.default,
        n_explanations=said.count,
        provenance=provenance,
        snippet=_snippet(setting, row, kept, found, provenance),
    )


def provenance_of(place: SAEPlace, version: VersionPlace, caller: Caller | None) -> ProvenanceOut:
    """Everything that the numbers of a version depend on."""
    corpus = version.corpus
    return ProvenanceOut(
        version=version.id,
        published_at=version.published_at,
        code_version=version.code_version,
        digest=version.digest,
        hook=version.hook,
        hook_out=version.hook_out,
        sae_sha256=place.weights_sha256,
        corpus=CorpusUsed(
            id=corpus.slug,
            digest=corpus.digest,
            context_length=corpus.context_length,
            prepend_bos=corpus.prepend_bos,
            n_contexts=version.n_contexts,
            n_tokens=version.n_tokens,
        ),
        settings=version.settings,
        build=BuildProvenance.model_validate(shown_provenance(version.provenance, caller)),
        model=shown_provenance(version.model_provenance, caller),
    )


def _snippet(
    setting: Setting,
    row: FeatureRow,
    kept: Examples,
    found: Mapping[int, ContextRow],
    provenance: ProvenanceOut,
) -> str | None:
    site = provenance.build.hook_site
    if row.peak_context is None or row.peak_position is None or site is None:
        return None
    context = found.get(row.peak_context)
    if context is None:
        return None
    place, version = setting.place, setting.version
    model: dict[str, Any] = provenance.build.model or version.model_provenance
    top = TopActivation(
        ref=f"{place.model}/{place.sae}/{row.idx}",
        index=row.idx,
        token_ids=context.ids.tolist(),
        position=row.peak_position,
        expected=_value_at(kept, row),
    )
    metadata: dict[str, Any] = version.sae_config.get("metadata") or {}
    weights = f"{setting.base_url}/v1/models/{place.model}/saes/{place.sae}/weights"
    recipe = Recipe(
        source=shown_source(version.model_source, setting.caller),
        model_dtype=str(model.get("dtype", "float32")),
        site=site,
        weights_url=weights if place.weights_uri else None,
        folder=f"{place.model}_{place.sae}",
        norm_scaling_factor=metadata.get("norm_scaling_factor"),
        is_centred=bool((metadata.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights")),
        is_positive_only=bool(version.sae_config.get("is_positive_only")),
    )
    return reproduce(top, recipe)


def _value_at(kept: Examples, row: FeatureRow) -> float:
    """The peak's value: exact from its column, but signed as the example is where magnitudes were ranked."""
    for number, positions, values in kept.rows():
        if int(kept.contexts[number]) == row.peak_context:
            at = np.flatnonzero(positions == row.peak_position)
            if len(at) and values[at[0]] < 0:
                return float(values[at[0]])
    return row.max_activation
