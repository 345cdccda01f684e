"""Reads what material is made from. A few statements for any number of features."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select

from interpedia_autointerp.material.source import Build, FeatureSource, Neighbour, Passage
from interpedia_shared.dashboards import Examples, FeatureStats, decode_examples, decode_stats
from interpedia_shared.db.models import SAE, Context, Corpus, Feature, LanguageModel, SAEVersion, Tokenizer
from interpedia_shared.db.session import ReadSession
from interpedia_shared.problems import VersionNotFound
from interpedia_shared.tokens import Vocabulary, unpack_ids

MAX_NEIGHBOURS = 10


async def read_build(session: ReadSession, version_id: int) -> Build:
    """What all features of a build share.

    Raises:
        VersionNotFound: there is no such build.
    """
    statement = (
        select(SAE, SAEVersion, Corpus, LanguageModel.shape, Tokenizer.vocabulary)
        .join(SAEVersion, SAEVersion.sae_id == SAE.id)
        .join(Corpus, Corpus.id == SAEVersion.corpus_id)
        .join(LanguageModel, LanguageModel.id == SAE.model_id)
        .join(Tokenizer, Tokenizer.hash == Corpus.tokenizer_hash)
        .where(SAEVersion.id == version_id)
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise VersionNotFound(f"There is no build {version_id} of an SAE.")
    sae, version, corpus, shape, packed = row
    n_layers = shape.get("n_layers")
    vocabulary = await asyncio.to_thread(Vocabulary.unpack, packed)
    return Build(
        model=sae.model_id,
        sae=sae.slug,
        version_id=version.id,
        corpus_id=corpus.id,
        n_contexts=version.n_contexts,
        n_tokens=version.n_tokens or 0,
        first=int(corpus.prepend_bos),
        vocabulary=vocabulary,
        depth=(sae.layer + 1) / n_layers if n_layers else None,
        made_from={
            "sae_version": version.id,
            "sae_version_digest": version.digest,
            "sae_weights_sha256": sae.weights_sha256,
            "corpus": corpus.slug,
            "corpus_digest": corpus.digest,
        },
    )


async def read_sources(
    session: ReadSession, build: Build, indices: Iterable[int]
) -> dict[int, FeatureSource]:
    """Features of a build as stored, by index; those that it does not have are left out."""
    own = await _features(session, build, indices)
    near = {index: _neighbours(stats, index) for index, (stats, _) in own.items()}
    others = {each for found in near.values() for each in found} - own.keys()
    known = own | await _features(session, build, others)
    wanted = {int(context) for _, examples in known.values() for context in examples.contexts}
    passages = await read_passages(session, build, wanted)
    sources: dict[int, FeatureSource] = {}
    for index, (stats, examples) in own.items():
        neighbours = [Neighbour(each, known[each][1]) for each in near[index] if each in known]
        sources[index] = FeatureSource(build, index, stats, examples, passages, neighbours)
    return sources


def _neighbours(stats: FeatureStats, index: int) -> list[int]:
    """Features of a similar direction in turn with those that fire together with it."""
    cosine, coactive = stats.cosine_neighbours.ids.tolist(), stats.coactive.ids.tolist()
    longest = max(len(cosine), len(coactive))
    turns = [ids[n] for n in range(longest) for ids in (cosine, coactive) if n < len(ids)]
    return [each for each in dict.fromkeys(turns) if each != index][:MAX_NEIGHBOURS]


async def _features(
    session: ReadSession, build: Build, indices: Iterable[int]
) -> dict[int, tuple[FeatureStats, Examples]]:
    wanted = sorted(set(indices))
    if not wanted:
        return {}
    statement = select(Feature.idx, Feature.stats, Feature.examples).where(
        Feature.sae_version_id == build.version_id, Feature.idx.in_(wanted)
    )
    rows = (await session.execute(statement)).all()
    return {index: (decode_stats(stats), decode_examples(examples)) for index, stats, examples in rows}


async def read_passages(session: ReadSession, build: Build, wanted: Iterable[int]) -> dict[int, Passage]:
    """Contexts of the build's corpus by row number."""
    width = await session.scalar(select(Corpus.token_width).where(Corpus.id == build.corpus_id))
    found: dict[int, Passage] = {}
    for part in _parts(sorted(set(wanted)), 5_000):
        statement = select(Context.idx, Context.tokens, Context.document_idx).where(
            Context.corpus_id == build.corpus_id, Context.idx.in_(part)
        )
        for index, tokens, document in await session.execute(statement):
            found[index] = Passage(index, unpack_ids(tokens, width or 2), document)
    return found


def _parts(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


async def sample_passages(session: ReadSession, build: Build, count: int, *, seed: int = 0) -> list[Passage]:
    """Contexts of the corpus by chance, the same at every run; for a `Pool`."""
    total = await session.scalar(select(Corpus.n_contexts).where(Corpus.id == build.corpus_id)) or 0

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{seed} context {index}".encode()).digest()

    chosen = sorted(range(total), key=draw)[:count]
    found = await read_passages(session, build, chosen)
    return [found[index] for index in chosen if index in found]
