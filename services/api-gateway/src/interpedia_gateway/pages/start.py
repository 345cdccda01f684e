"""The start page: what is hosted here, and where to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy import func, select

from interpedia_gateway.jobs.service import visible_to
from interpedia_gateway.state import BaseURL, TheGateway
from interpedia_shared import __version__
from interpedia_shared.db.models import SAE, Feature, Job, LanguageModel
from interpedia_shared.db.session import ReadSession

router = APIRouter(include_in_schema=False)
MAX_ROWS = 200
_PAGES = Environment(
    loader=PackageLoader("interpedia_gateway.pages", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "public, no-cache",
}


@dataclass(frozen=True, slots=True)
class Hosted:
    """One SAE on the start page."""

    model: str
    sae: str
    title: str
    architecture: str
    hook: str
    n_features: int
    state: str
    is_readable: bool


@dataclass(frozen=True, slots=True)
class Running:
    """One unfinished job on the start page."""

    id: str
    kind: str
    state: str
    stage: str
    done: int
    total: int

    @property
    def percent(self) -> int:
        """How far it is, 0..100."""
        return min(100, 100 * self.done // self.total) if self.total > 0 else 0


@router.get("/")
async def start_page(gateway: TheGateway, base: BaseURL) -> HTMLResponse:
    """What is hosted here, for a browser."""
    async with gateway.database.read() as session:
        facts: dict[str, Any] = {
            "models": await _models(session),
            "saes": await _saes(session),
            "jobs": await _jobs(session),
            "n_saes": await _count_saes(session),
            "dashboard": await _a_dashboard(session),
        }
    html = _PAGES.get_template("start.html").render(
        **facts, base=base, version=__version__, max_rows=MAX_ROWS
    )
    return HTMLResponse(html, headers=SECURITY_HEADERS)


async def _models(session: ReadSession) -> list[tuple[str, str, str]]:
    statement = select(LanguageModel.id, LanguageModel.name, LanguageModel.licence)
    rows = await session.execute(statement.order_by(LanguageModel.id).limit(MAX_ROWS))
    return [(model, name, licence or "licence not stated") for model, name, licence in rows]


async def _count_saes(session: ReadSession) -> int:
    statement = select(func.count()).select_from(SAE).where(SAE.visibility == "public")
    return await session.scalar(statement) or 0


async def _saes(session: ReadSession) -> list[Hosted]:
    statement = (
        select(
            SAE.model_id,
            SAE.slug,
            SAE.title,
            SAE.architecture,
            SAE.hook,
            SAE.d_sae,
            SAE.state,
            SAE.current_version_id.is_not(None),
        )
        .where(SAE.visibility == "public")
        .order_by(SAE.model_id, SAE.layer, SAE.slug)
        .limit(MAX_ROWS)
    )
    return [Hosted(*row) for row in await session.execute(statement)]


async def _jobs(session: ReadSession) -> list[Running]:
    statement = (
        select(Job.id, Job.kind, Job.state, Job.stage, Job.done, Job.total)
        .where(Job.state.in_(("queued", "running")), visible_to(None))
        .order_by(Job.created_at.desc())
        .limit(20)
    )
    return [
        Running(str(job), kind, state, stage or "", done, total)
        for job, kind, state, stage, done, total in await session.execute(statement)
    ]


MIDDLING_DENSITY = 0.002


async def _a_dashboard(session: ReadSession) -> str | None:
    """Path of one dashboard worth a look, in the last SAE listed.

    A feature of middling density: the strongest and the densest say the least.
    """
    statement = (
        select(SAE.model_id, SAE.slug, SAE.current_version_id)
        .where(SAE.visibility == "public", SAE.current_version_id.is_not(None))
        .order_by(SAE.model_id.desc(), SAE.layer.desc())
        .limit(1)
    )
    sae = (await session.execute(statement)).one_or_none()
    if sae is None:
        return None
    index = await session.scalar(
        select(Feature.idx)
        .where(Feature.sae_version_id == sae[2], Feature.density >= MIDDLING_DENSITY)
        .order_by(Feature.density, Feature.idx)
        .limit(1)
    )
    return None if index is None else f"/v1/models/{sae[0]}/saes/{sae[1]}/features/{index}"
