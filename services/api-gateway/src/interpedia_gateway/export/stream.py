"""All features of one build as a stream of constant memory.

Rows of a build never change, so each chunk is read in a short session of its own, by its place in the order:
a slow reader holds no connection and no transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog

from interpedia_gateway.catalogue.lookup import SAEPlace
from interpedia_gateway.export.encoders import Encoder
from interpedia_gateway.export.rows import contexts_of, export_row
from interpedia_gateway.features.dashboards import Setting
from interpedia_gateway.features.repository import ContextRow, FeatureRow, contexts, features_from
from interpedia_gateway.state import Gateway
from interpedia_gateway.vocabulary import Words

log = structlog.get_logger(__name__)


class BuildGone(Exception):
    """The build was swept, or has holes, while it was read: the stream breaks rather than end too early."""


async def stream(gateway: Gateway, setting: Setting, encoder: Encoder) -> AsyncGenerator[bytes]:
    """Yield the file's bytes.

    Raises:
        BuildGone: a feature is missing; the reader sees a broken transfer, never a short file.
    """
    first, wanted = 0, setting.place.d_sae
    while first < wanted:
        rows, found = await _read(gateway, setting, first)
        if not rows or rows[0].idx != first or rows[-1].idx != first + len(rows) - 1:
            log.error("export_hole", sae=f"{setting.place.model}/{setting.place.sae}", first=first)
            raise BuildGone(f"feature {first} of version {setting.version.id}")
        first += len(rows)
        yield await asyncio.to_thread(_encode, encoder, setting.place, rows, found, setting.words)
    yield await asyncio.to_thread(encoder.end)


async def _read(
    gateway: Gateway, setting: Setting, first: int
) -> tuple[list[FeatureRow], dict[int, ContextRow]]:
    async with gateway.database.read() as session:
        rows = await features_from(session, setting.version.id, first, gateway.settings.export_chunk)
        wanted = await asyncio.to_thread(contexts_of, rows)
        return rows, await contexts(session, setting.version.corpus, wanted)


def _encode(
    encoder: Encoder,
    place: SAEPlace,
    rows: list[FeatureRow],
    found: dict[int, ContextRow],
    words: Words,
) -> bytes:
    return encoder.chunk([export_row(place, row, found, words) for row in rows])
