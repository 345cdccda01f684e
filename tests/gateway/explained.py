"""A small catalogue with explanations, for tests of search and explanations."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from interpedia_shared.db.models import SAE, Release, Run, Score
from interpedia_shared.db.session import WriteSession
from interpedia_shared.explanations import HUMAN, NewExplanation, add_explanations
from tests.support.factories import (
    TOKENS,
    World,
    fill_version,
    make_account,
    make_model,
    make_sae,
    make_version,
    publish_world,
)


@dataclass
class Explained:
    """The public SAE `tiny/1-res-test` of `World`, and three more with what is said about their features."""

    world: World
    guest_key: str
    reader_key: str
    release_id: int
    saes: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    """Explanation by text."""


WATER = {0: "rivers and lakes", 1: "the sea, ships and sailors", 2: "closing brackets in program code"}


async def publish_explained(session: WriteSession, data_dir: Path) -> Explained:
    """`tiny/1-res-test` of release `first`; of the guest's: 2-hidden, 3-unlisted, and `other/1-res`."""
    world = await publish_world(session, data_dir)
    guest, guest_key = await make_account(session, "guest", scopes=())
    _, reader_key = await make_account(session, "reader", scopes=())
    release = Release(slug="first", name="First", account_id=world.account_id)
    session.add(release)
    await session.flush()
    await session.execute(update(SAE).where(SAE.id == world.sae_id).values(release_id=release.id))
    found = Explained(world, guest_key, reader_key, release.id, {"1-res-test": world.sae_id})
    await _say(session, found, world.sae_id, WATER, author=world.account_id)
    for slug, visibility in (("2-hidden", "private"), ("3-unlisted", "unlisted")):
        sae_id = await make_sae(session, guest, d_sae=40, slug=slug, visibility=visibility)
        version = await make_version(session, sae_id, world.corpus_id)
        await fill_version(session, World(**{**vars(world), "sae_id": sae_id}), version, seed=1)
        found.saes[slug] = sae_id
        await _say(session, found, sae_id, {0: f"rivers in {slug}"}, author=guest)
    await make_model(session, "other", tokens=[b"<s>", b" lake", *TOKENS[4:20]])
    other = await make_sae(session, guest, d_sae=40, slug="1-res", model_id="other")
    version = await make_version(session, other, world.corpus_id)
    await fill_version(session, World(**{**vars(world), "sae_id": other}), version, seed=2)
    found.saes["1-res"] = other
    await _say(session, found, other, {5: "canals and rivers of other models"}, author=guest)
    return found


async def _say(
    session: WriteSession, found: Explained, sae_id: int, texts: dict[int, str], *, author: int
) -> None:
    rows = [NewExplanation(index, text, HUMAN, author) for index, text in texts.items()]
    ids = await add_explanations(session, sae_id, rows)
    found.ids |= dict(zip(texts.values(), ids, strict=True))


async def make_run(session: WriteSession, account_id: int) -> uuid.UUID:
    """A run for scores to hang on."""
    run = Run(
        id=uuid.uuid4(), kind="score", method="detection", method_version="1", params={}, provenance={},
        account_id=account_id,
    )  # fmt: skip
    session.add(run)
    await session.flush()
    return run.id


async def add_score(
    session: WriteSession, run: uuid.UUID, explanation: int, value: float | None, **columns: Any
) -> None:
    """A headline score of ± 0.05 beside a baseline of 0.5."""
    defaults: dict[str, Any] = {
        "explanation_id": explanation,
        "run_id": run,
        "scorer": "detection",
        "metric": "balanced_accuracy",
        "stratum": "all",
        "is_headline": True,
        "status": "ok" if value is not None else "failed",
        "value": value,
        "ci_low": None if value is None else value - 0.05,
        "ci_high": None if value is None else value + 0.05,
        "n": 100,
        "n_failed": 0,
        "n_abstained": 0,
        "baseline": 0.5,
        "judge": "default: judge-1",
        "split_hash": "f" * 64,
        "details": {},
    }
    await session.execute(insert(Score).values({**defaults, **columns}))
