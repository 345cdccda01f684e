"""What is needed to publish: the rows that a request names, and whether they fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpedia_engine.hooks import ModelShape
from interpedia_ingest.corpora import repository as corpora
from interpedia_ingest.dashboards.errors import BadSettings
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.models import repository as models
from interpedia_ingest.refusals import refuse
from interpedia_ingest.saes.checks import CheckedSAE, check_manifest
from interpedia_ingest.settings import IngestSettings
from interpedia_ingest.uploads.complete import complete_files
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.publishing import SAEManifest, SAERequest
from interpedia_shared.db.models import Corpus, LanguageModel
from interpedia_shared.db.session import Database, ReadSession
from interpedia_shared.problems import BadSAE, Conflict

Files = Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Order:
    """A request that holds: everything is known and fits together."""

    request: SAERequest
    model: LanguageModel
    shape: ModelShape
    corpus: Corpus
    settings: DashboardSettings
    n_tokens: int
    """Of the corpus, BOS included; rounded up to whole contexts."""
    saes: Sequence[CheckedSAE]

    @property
    def n_contexts(self) -> int:
        """Contexts that the build reads."""
        return min(self.corpus.n_contexts, -(-self.n_tokens // self.corpus.context_length))


async def check_order(
    database: Database, folder: DataFolder, settings: IngestSettings, *, caller: Caller, request: SAERequest
) -> Order:
    """Check a request from the model down to the last weight.

    Raises:
        BadSAE: names the field and the fact.
        Conflict: the corpus is still being tokenised.
    """
    manifests = request.manifests()
    _check_names(manifests, settings)
    async with database.read() as session:
        model = await models.find(session, request.model)
        if model is None:
            raise refuse(BadSAE, "#/model", f"no model '{request.model}' is registered here")
        corpus = await _ready_corpus(session, request.corpus, model)
        files = [await _files(session, folder, caller, pointer, manifest) for pointer, manifest in manifests]
    shape = models.shape_of(model)
    saes = [
        await asyncio.to_thread(check_manifest, pointer, manifest, paths, shape)
        for (pointer, manifest), paths in zip(manifests, files, strict=True)
    ]
    order = Order(
        request=request,
        model=model,
        shape=shape,
        corpus=corpus,
        settings=_dashboard_settings(request, corpus, model),
        n_tokens=_n_tokens(request, corpus),
        saes=saes,
    )
    _check_dense(order, settings.max_dense_values)
    return order


def _check_names(manifests: Sequence[tuple[str, SAEManifest]], settings: IngestSettings) -> None:
    if len(manifests) > settings.max_saes_per_job:
        detail = f"{len(manifests)} SAEs are more than the {settings.max_saes_per_job} of one job"
        raise refuse(BadSAE, "#/saes", detail, limits={"le": settings.max_saes_per_job})
    seen: set[str] = set()
    for pointer, manifest in manifests:
        if manifest.name in seen:
            raise refuse(BadSAE, f"{pointer}/name", f"'{manifest.name}' is named twice in this request")
        seen.add(manifest.name)


async def _ready_corpus(session: ReadSession, slug: str, model: LanguageModel) -> Corpus:
    corpus = await corpora.find(session, slug)
    if corpus is None:
        raise refuse(BadSAE, "#/corpus", f"no corpus '{slug}' is here")
    if corpus.state == "building":
        raise Conflict(
            f"Corpus '{slug}' is still being tokenised. Wait for its job.",
            extensions={"corpus": slug, "job": None if corpus.job_id is None else str(corpus.job_id)},
        )
    if corpus.state != "ready" or corpus.n_contexts == 0:
        raise refuse(BadSAE, "#/corpus", f"'{slug}' has no contexts: its state is '{corpus.state}'")
    if corpus.tokenizer_hash != model.tokenizer_hash:
        raise refuse(
            BadSAE,
            "#/corpus",
            f"'{slug}' was tokenised with another tokenizer than that of '{model.id}'",
            corpus_tokenizer=corpus.tokenizer_hash,
            model_tokenizer=model.tokenizer_hash,
        )
    return corpus


async def _files(
    session: ReadSession, folder: DataFolder, caller: Caller, pointer: str, manifest: SAEManifest
) -> Files | None:
    where = f"{pointer}/upload"
    if manifest.upload is None:
        if manifest.architecture is None:
            raise refuse(BadSAE, where, "is missing; only an identity dictionary needs none")
        return None
    if manifest.architecture is not None:
        raise refuse(BadSAE, where, "an identity dictionary has no weights, so it takes no upload")
    files = await complete_files(
        session, caller.account_id, manifest.upload, kind="sae", pointer=where, problem=BadSAE
    )
    return {file.name: folder.blobs.path(file.uri or "") for file in files}


def _n_tokens(request: SAERequest, corpus: Corpus) -> int:
    available = corpus.n_contexts * corpus.context_length
    wanted = request.n_tokens if request.n_tokens is not None else available
    if wanted > available:
        detail = f"{wanted} tokens are more than the {available} of corpus '{corpus.slug}'"
        raise refuse(BadSAE, "#/n_tokens", detail, limits={"ge": 1, "le": available})
    return wanted


def _dashboard_settings(request: SAERequest, corpus: Corpus, model: LanguageModel) -> DashboardSettings:
    chosen: dict[str, Any] = request.settings.model_dump(exclude_none=True)
    positions = chosen.pop("ignore_positions", [])
    outside = [position for position in positions if position >= corpus.context_length]
    if outside:
        detail = f"position {outside[0]} is outside 0..{corpus.context_length - 1}"
        raise refuse(BadSAE, "#/settings/ignore_positions", detail)
    bos: Any = corpus.provenance.get("bos_token_id", model.bos_token_id)
    try:
        settings = DashboardSettings(
            context_length=corpus.context_length,
            prepend_bos=corpus.prepend_bos,
            ignore_ids=() if bos is None else (int(bos),),
            ignore_positions=tuple(sorted(set(positions))),
            **chosen,
        )
    except BadSettings as error:
        raise refuse(BadSAE, f"#/settings/{error.field}", error.detail) from error
    if len(set(positions) | ({0} if corpus.prepend_bos else set())) >= corpus.context_length:
        raise refuse(BadSAE, "#/settings/ignore_positions", "they leave no position that counts")
    return settings


def _check_dense(order: Order, limit: int) -> None:
    length = order.corpus.context_length
    for sae in order.saes:
        wanted = order.n_contexts * length * sae.d_sae
        if sae.is_dense and wanted > limit:
            most = limit // (sae.d_sae * length) * length
            raise refuse(
                BadSAE,
                "#/n_tokens",
                f"{order.n_contexts * length} tokens × {sae.d_sae} coordinates of '{sae.manifest.name}' are "
                f"{wanted} values, the limit is {limit}: nothing of an identity dictionary is sparse. "
                f"Ask for at most {most} tokens",
                limits={"ge": 1, "le": most},
            )
