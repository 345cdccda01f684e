"""SAEs loaded on demand, kept within a budget of bytes, and never taken from who is using them."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from interpedia_engine.errors import EngineError
from interpedia_engine.hooks import ModelShape, parse_hook
from interpedia_engine.saes import SAE, load_sae, parse_config
from interpedia_engine.saes.tensors import expected_tensors
from interpedia_inference.admission.ticket import Ticket
from interpedia_inference.metrics import SAE_BYTES, SAE_LOADS
from interpedia_inference.settings import InferenceSettings
from interpedia_inference.shelf.held import HeldSAE
from interpedia_inference.shelf.repository import SAERow, read_saes
from interpedia_shared.blobs import BlobStore
from interpedia_shared.db.session import Database
from interpedia_shared.problems import BadSAE, Problem, SAENotFound, TooLarge, Unavailable

log = structlog.get_logger(__name__)

_ROWS_FRESH_S = 2.0
_MAX_ROWS = 4_096
_FLOAT = 4
_LOAD_ERRORS = (EngineError, OSError, ValueError, RuntimeError, MemoryError)


@dataclass(eq=False)
class _Loaded:
    """An SAE that is here or on its way."""

    key: str
    loading: asyncio.Task[SAE]
    bytes: int
    users: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether it may not be let go of."""
        return self.users > 0 or not self.loading.done()


class SAEShelf:
    """Lends SAEs of one model. Event loop only; files are read in threads.

    Args:
        database: Where SAEs are registered.
        settings: The budget, the device.
        model_id: Whose SAEs.
    """

    def __init__(self, database: Database, settings: InferenceSettings) -> None:
        self._database = database
        self._settings = settings
        self._blobs = BlobStore(Path(settings.data_dir).absolute() / "blobs")
        self._rows: OrderedDict[tuple[str, str], tuple[float, SAERow]] = OrderedDict()
        self._held: OrderedDict[str, _Loaded] = OrderedDict()
        self._slugs: dict[str, str] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def bytes(self) -> int:
        """Memory of what is loaded or being loaded."""
        return sum(one.bytes for one in self._held.values())

    def loaded(self) -> list[str]:
        """Slugs of the SAEs that are loaded, those used last at the end."""
        return [self._slugs[key] for key, one in self._held.items() if one.loading.done()]

    async def rows(self, model: str, slugs: Sequence[str]) -> dict[str, SAERow]:
        """Rows of SAEs, at most two seconds old.

        Raises:
            SAENotFound: the model has no such SAE.
        """
        now = time.monotonic()
        missing = [s for s in slugs if now - self._rows.get((model, s), (-1e9,))[0] > _ROWS_FRESH_S]
        if missing:
            async with self._database.read() as session:
                found = await read_saes(session, model, missing)
            for slug in missing:
                self._rows.pop((model, slug), None)
                if slug not in found:
                    raise SAENotFound(model, slug)
                self._rows[model, slug] = (now, found[slug])
            while len(self._rows) > _MAX_ROWS:
                self._rows.popitem(last=False)
        return {slug: self._rows[model, slug][1] for slug in slugs}

    @asynccontextmanager
    async def borrow(
        self, model: str, shape: ModelShape, slugs: Sequence[str], ticket: Ticket
    ) -> AsyncGenerator[dict[str, HeldSAE]]:
        """SAEs by slug; they stay loaded until the block ends.

        All are taken together, so that two callers never wait for each other's. A load is shared by all who
        ask for the same SAE.

        Raises:
            SAENotFound: the model has no such SAE.
            TooLarge: they are over the budget by themselves.
            Unavailable: the weights cannot be read right now.
            BadSAE: the files are not what they were at intake.
            Problem: the ticket was over while others used up the budget.
        """
        rows = await self.rows(model, slugs)
        taken = await self._take(rows, ticket)
        try:
            held: dict[str, HeldSAE] = {}
            for slug, one in taken.items():
                sae = await ticket.outcome(asyncio.shield(one.loading))
                held[slug] = _held(rows[slug], sae, shape)
            yield held
        finally:
            self._give_back(taken)

    async def _take(self, rows: dict[str, SAERow], ticket: Ticket) -> dict[str, _Loaded]:
        """Pin all of them, starting what is not here, as soon as they fit."""
        sizes = {_key(row): _bytes(row) for row in rows.values()}
        needed, budget = sum(sizes.values()), self._settings.max_sae_bytes
        if needed > budget:
            raise TooLarge(
                f"The SAEs asked for take {needed} bytes, this host keeps {budget}. Ask for fewer at once.",
                extensions={"what": "sae_bytes", "limit": budget, "value": needed},
            )
        while not self._make_room(sizes):
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(freed)
            try:
                await ticket.outcome(freed)
            finally:
                self._waiting.discard(freed)
        return {slug: self._pin(row) for slug, row in rows.items()}

    def _make_room(self, sizes: dict[str, int]) -> bool:
        """Let go of unused SAEs, those used longest ago first, until these fit; False while they do not."""
        budget = self._settings.max_sae_bytes
        in_use = sum(one.bytes for key, one in self._held.items() if one.is_busy and key not in sizes)
        if in_use + sum(sizes.values()) > budget:
            return False
        new = sum(size for key, size in sizes.items() if key not in self._held)
        for key in [key for key, one in self._held.items() if not (one.is_busy or key in sizes)]:
            if self.bytes + new <= budget:
                break
            self._remove(key)
        return True

    def _pin(self, row: SAERow) -> _Loaded:
        key = _key(row)
        one = self._held.get(key)
        if one is None:
            one = _Loaded(key, asyncio.create_task(self._load(key, row)), _bytes(row))
            one.loading.add_done_callback(self._on_loaded)
            self._held[key] = one
            self._slugs[key] = row.slug
        one.users += 1
        self._held.move_to_end(key)
        SAE_BYTES.set(self.bytes)
        return one

    def _give_back(self, taken: dict[str, _Loaded]) -> None:
        for one in taken.values():
            one.users -= 1
        self._tell_waiting()

    def _on_loaded(self, loading: asyncio.Task[SAE]) -> None:
        if not loading.cancelled():
            loading.exception()  # seen, also when whoever asked has left
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        for freed in self._waiting:
            if not freed.done():
                freed.set_result(None)

    async def _load(self, key: str, row: SAERow) -> SAE:
        started = time.perf_counter()
        try:
            sae = await asyncio.to_thread(self._read, row)
        except BaseException as error:
            # Whatever it was: the next caller tries again.
            self._remove(key)
            if isinstance(error, _LOAD_ERRORS):
                raise _refusal(row, error) from error
            raise
        SAE_LOADS.labels("loaded").inc()
        log.info("sae_loaded", sae=row.slug, seconds=round(time.perf_counter() - started, 3))
        return sae

    def _read(self, row: SAERow) -> SAE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cfg.json"
            path.write_text(json.dumps(row.config), encoding="utf-8")
            files = {"cfg.json": path}
            if row.weights_uri is not None:
                files["sae_weights.safetensors"] = self._blobs.path(row.weights_uri)
            return load_sae(files, self._settings.device, torch.float32)

    def _remove(self, key: str) -> None:
        if self._held.pop(key, None) is not None:
            slug = self._slugs.pop(key)
            SAE_LOADS.labels("unloaded").inc()
            SAE_BYTES.set(self.bytes)
            log.info("sae_unloaded", sae=slug)


def _key(row: SAERow) -> str:
    """The same weights and configuration are the same SAE, whatever it is called; its id tells two apart."""
    return f"{row.id} {row.weights_uri} {json.dumps(row.config, sort_keys=True)}"


def _bytes(row: SAERow) -> int:
    """Memory of the weights in float32; a configuration that cannot be read is refused when it is loaded."""
    try:
        shapes = expected_tensors(parse_config(json.dumps(row.config).encode()))
    except EngineError:
        return row.weights_bytes
    return _FLOAT * sum(math.prod(shape) for shape in shapes.values())


def _held(row: SAERow, sae: SAE, shape: ModelShape) -> HeldSAE:
    return HeldSAE(
        slug=row.slug,
        sae=sae,
        hook=parse_hook(row.hook, shape),
        hook_out=parse_hook(row.hook_out or row.hook, shape),
        sae_id=row.id,
        version_id=row.version_id,
        weights_sha256=row.weights_sha256,
    )


def _refusal(row: SAERow, error: Exception) -> Problem:
    log.error("sae_not_loaded", sae=row.slug, exc_info=error)
    if isinstance(error, EngineError):
        return BadSAE(f"SAE '{row.slug}' cannot be loaded: {error.field}: {error.detail}")
    return Unavailable(f"The weights of SAE '{row.slug}' cannot be read right now.", retry_after_s=10)
