"""The rules of publishing SAEs: all of a request is registered, or nothing."""

from __future__ import annotations

from interpedia_ingest.build.plan import KIND, STAGES, PlannedSAE, plan_tasks
from interpedia_ingest.folders import DataFolder
from interpedia_ingest.models.repository import lock_name
from interpedia_ingest.saes import repository
from interpedia_ingest.saes.checks import CheckedSAE, hook_site
from interpedia_ingest.saes.orders import Order, check_order
from interpedia_ingest.settings import IngestSettings
from interpedia_shared import __version__
from interpedia_shared.auth import Caller
from interpedia_shared.contracts.provenance import BuildProvenance
from interpedia_shared.contracts.publishing import ReleaseRequest, SAEAccepted, SAERequest, SAEsAccepted
from interpedia_shared.db.base import JSON
from interpedia_shared.db.models import SAE, Release, SAEVersion
from interpedia_shared.db.session import Database, WriteSession
from interpedia_shared.idempotency import Answer, Once
from interpedia_shared.jobs import create_job, job_out
from interpedia_shared.problems import Conflict


class SAEService:
    """Takes in SAEs and orders the build of their dashboards."""

    def __init__(self, database: Database, folder: DataFolder, settings: IngestSettings) -> None:
        self._database = database
        self._folder = folder
        self._settings = settings

    async def publish(self, caller: Caller, request: SAERequest, once: Once) -> Answer:
        """Check everything, then register it with its job in one transaction.

        The owner of an SAE who publishes the same weights again starts a new version of its dashboards; the
        old one stays readable until the new one is whole. Other weights need another name, unless the SAE
        never had a finished version.

        Raises:
            BadSAE: names the field and the fact.
            Conflict: a name is taken, or a build of the SAE is under way.
            Unavailable: the data disk is full.
        """
        kept = await once.replay(self._database)
        if kept is not None:
            return kept
        self._folder.require_room(1)
        order = await check_order(
            self._database, self._folder, self._settings, caller=caller, request=request
        )
        async with self._database.write() as session:
            kept = await once.claim(session)
            if kept is not None:
                return kept
            accepted = await self._register(session, caller, order)
            return await once.keep(session, Answer.of(202, accepted))

    async def _register(self, session: WriteSession, caller: Caller, order: Order) -> SAEsAccepted:
        release = await _release(session, caller, order.request.release)
        # In one order for all requests, so that two of them cannot wait for one another.
        for name in sorted(sae.manifest.name for sae in order.saes):
            await lock_name(session, "sae", f"{order.model.id}/{name}")
        saes = [await _sae_row(session, caller, order, sae, release) for sae in order.saes]
        versions = [_version_row(order, sae, row.id) for sae, row in zip(order.saes, saes, strict=True)]
        session.add_all(versions)
        await session.flush()
        planned = [
            PlannedSAE(version_id=version.id, d_sae=row.d_sae)
            for row, version in zip(saes, versions, strict=True)
        ]
        job = await create_job(
            session,
            kind=KIND,
            account_id=caller.account_id,
            params={
                "model": order.model.id,
                "corpus": order.corpus.slug,
                "saes": [row.slug for row in saes],
                "n_contexts": order.n_contexts,
                "n_tokens": order.n_contexts * order.corpus.context_length,
            },
            stages=STAGES,
            tasks=plan_tasks(planned, n_contexts=order.n_contexts, settings=self._settings),
        )
        for version in versions:
            version.job_id = job.id
        await session.flush()
        accepted = [_accepted(row, version) for row, version in zip(saes, versions, strict=True)]
        return SAEsAccepted(
            sae=accepted[0] if len(accepted) == 1 else None,
            saes=accepted,
            job=await job_out(session, job),
        )


async def _release(session: WriteSession, caller: Caller, wanted: ReleaseRequest | None) -> Release | None:
    if wanted is None:
        return None
    await lock_name(session, "release", wanted.id)
    release = await repository.find_release(session, wanted.id)
    if release is None:
        release = Release(
            slug=wanted.id,
            name=wanted.name,
            description=wanted.description,
            url=wanted.url,
            account_id=caller.account_id,
        )
        session.add(release)
        await session.flush()
    if release.account_id != caller.account_id:
        raise Conflict(
            f"Release '{wanted.id}' belongs to another account. Take another id.",
            extensions={"release": wanted.id, "field": "#/release/id"},
        )
    return release


async def _sae_row(
    session: WriteSession, caller: Caller, order: Order, checked: CheckedSAE, release: Release | None
) -> SAE:
    manifest = checked.manifest
    row = await repository.find_sae(session, order.model.id, manifest.name)
    if row is None:
        row = SAE(model_id=order.model.id, slug=manifest.name, account_id=caller.account_id)
        session.add(row)
    else:
        await _check_again(session, caller, row, checked)
        await repository.abandon_unfinished(session, row.id)
    if row.current_version_id is None:
        row.state = "building"
    _fill(row, checked, release)
    await session.flush()
    return row


async def _check_again(session: WriteSession, caller: Caller, row: SAE, checked: CheckedSAE) -> None:
    """Whether an SAE that exists may be published again.

    Raises:
        Conflict: it may not, with what to do instead.
    """
    where = {"model": row.model_id, "sae": row.slug, "field": f"{checked.pointer}/name"}
    if row.account_id != caller.account_id:
        raise Conflict(
            f"{row.model_id}/{row.slug} belongs to another account. Take another name.", extensions=where
        )
    job = await repository.build_under_way(session, row.id)
    if job is not None:
        raise Conflict(
            f"Dashboards of {row.model_id}/{row.slug} are being built by job {job.id}. "
            "Wait for it, or cancel it.",
            extensions={**where, "job": str(job.id)},
        )
    same = (
        row.weights_sha256 == checked.weights_sha256
        and row.config == checked.config
        and row.hook == checked.hook.name
    )
    if not same and row.current_version_id is not None:
        raise Conflict(
            f"{row.model_id}/{row.slug} has other weights, configuration or hook. Publish this SAE under "
            "another name; for a new version of the dashboards, publish the same weights again.",
            extensions=where,
        )


def _fill(row: SAE, checked: CheckedSAE, release: Release | None) -> None:
    manifest = checked.manifest
    row.title = manifest.title or row.title or ""
    row.description = manifest.description or row.description or ""
    if release is not None:
        row.release_id = release.id
    row.architecture = checked.architecture
    row.hook = checked.hook.name
    row.hook_out = checked.hook_out.name if checked.hook_out != checked.hook else None
    # The embedding comes before layer 0.
    row.layer = -1 if checked.hook.layer is None else checked.hook.layer
    row.d_in, row.d_out, row.d_sae = checked.d_in, checked.d_out, checked.d_sae
    row.config = checked.config
    row.weights_uri = checked.weights_uri
    row.weights_sha256 = checked.weights_sha256
    row.weights_bytes = checked.n_weight_bytes


def _version_row(order: Order, checked: CheckedSAE, sae_id: int) -> SAEVersion:
    return SAEVersion(
        sae_id=sae_id,
        corpus_id=order.corpus.id,
        state="building",
        settings=order.settings.to_json(),
        provenance=_provenance(order, checked),
        code_version=__version__,
        n_contexts=order.n_contexts,
    )


def _provenance(order: Order, checked: CheckedSAE) -> JSON:
    epsilon = order.model.provenance.get("norm_epsilon")
    known = BuildProvenance.model_validate(
        {
            "model": order.model.provenance,
            "hook": checked.hook.name,
            "hook_site": hook_site(checked.hook, order.shape, norm_epsilon=epsilon),
            "prepend_bos": order.corpus.prepend_bos,
            "masking": _masking(order),
            "sae_sha256": checked.weights_sha256,
            "corpus": order.corpus.slug,
            "corpus_digest": order.corpus.digest,
            "final_norm_gain": order.settings.final_norm_gain,
            "code_version": __version__,
            "decoder_norms": checked.decoder_norms,
            "notes": list(checked.notes),
        }
    )
    return known.model_dump(mode="json")


def _masking(order: Order) -> str:
    settings = order.settings
    parts = ["BOS at position 0"] if settings.prepend_bos else []
    if settings.ignore_ids:
        parts.append(f"token ids {', '.join(map(str, settings.ignore_ids))}")
    if settings.ignore_positions:
        parts.append(f"positions {', '.join(map(str, settings.ignore_positions))}")
    if settings.norm_multiple is not None:
        parts.append(f"activations of more than {settings.norm_multiple:g} times the median norm")
    return f"Not counted: {'; '.join(parts)}." if parts else "Every position counts."


def _accepted(row: SAE, version: SAEVersion) -> SAEAccepted:
    return SAEAccepted(
        model=row.model_id,
        sae=row.slug,
        version=version.id,
        state=row.state,
        hook=row.hook,
        architecture=row.architecture,
        d_sae=row.d_sae,
    )
