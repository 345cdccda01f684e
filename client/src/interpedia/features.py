"""Features: their dashboards, lists, vectors and neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, TypedDict, Unpack, cast
from urllib.parse import quote

from interpedia.listing import items
from interpedia.references import FeatureRef
from interpedia.schemas import BatchItem, Feature, Resource
from interpedia.transport import Parameters, Request, Transport


class FeatureFilters(TypedDict, total=False):
    """How to narrow and order a list of features; the API documents each."""

    sort: str
    order: Literal["asc", "desc"]
    min_density: float
    max_density: float
    promotes: str
    has_explanation: bool
    alive: bool
    limit: int
    """How many features at the most; all by default."""
    page_size: int
    """How many are fetched at once."""


PAGE = 100
"""Features fetched at once."""


class Features:
    """`client.features`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, ref: FeatureRef | str) -> Feature:
        """The dashboard of one feature, named by a reference or a URL.

        Raises:
            NotFound: no such model, SAE or index.
        """
        return self._transport.read(Request("GET", FeatureRef.parse(ref).path), Feature)

    def list(self, model: str, sae: str, **filters: Unpack[FeatureFilters]) -> Iterator[Feature]:
        """The features of an SAE, at most `limit` of them, fetched a page at a time as the caller goes on."""
        path = f"/v1/models/{quote(model, safe='')}/saes/{quote(sae, safe='')}/features"
        wanted = filters.pop("limit", None)
        page = filters.pop("page_size", PAGE)
        page = page if wanted is None else max(1, min(wanted, page))
        found = items(self._transport, path, cast(Parameters, {**filters, "limit": page}), Feature)
        return islice(found, wanted)

    def batch(
        self, refs: Iterable[FeatureRef | str], *, include: Literal["summary", "dashboard"] = "summary"
    ) -> list[BatchItem]:
        """Several features in one request, in the order asked for; one that is missing says so by itself."""
        body = {"refs": [str(FeatureRef.parse(ref)) for ref in refs], "include": include}
        answer = self._transport.read(Request("POST", "/v1/features/batch", json=body), dict[str, Any])
        return [BatchItem.model_validate(item) for item in answer["items"]]

    def vector(self, ref: FeatureRef | str) -> Resource:
        """The feature's decoder vector with its provenance."""
        return self._transport.read(Request("GET", f"{FeatureRef.parse(ref).path}/vector"), Resource)

    def neighbours(self, ref: FeatureRef | str) -> Resource:
        """The features nearest in direction and those active together with it."""
        return self._transport.read(Request("GET", f"{FeatureRef.parse(ref).path}/neighbours"), Resource)
