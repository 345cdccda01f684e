"""Whole documents to splits, so that no test shares a text with what an explainer has read."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from interpedia_autointerp.material.cutting import Cut
from interpedia_autointerp.material.window import SPLITS, Split


def assign(
    cuts: Iterable[Cut],
    shares: Mapping[Split, float],
    *,
    seed: int,
    taken: Mapping[int, Split] | None = None,
) -> dict[int, Split]:
    """A split for every document of the windows.

    In an order by chance, each document goes where its strata are most lacking, so that every split gets its
    share of every stratum as well as whole documents allow.

    Args:
        cuts: the windows to be divided.
        shares: of the windows, for each split.
        seed: of the order.
        taken: documents that have their split already; they keep it and count.
    """
    by_document: defaultdict[int, Counter[str]] = defaultdict(Counter)
    totals: Counter[str] = Counter()
    for cut in cuts:
        by_document[cut.passage.document][cut.stratum] += 1
        totals[cut.stratum] += 1
    found: dict[int, Split] = {}
    has: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    for document in _ordered(by_document, seed, taken or {}):
        counts = by_document[document]
        split = (taken or {}).get(document) or _neediest(counts, totals, has, shares)
        found[document] = split
        has[split] += counts
    return found


def _ordered(documents: Iterable[int], seed: int, taken: Mapping[int, Split]) -> Sequence[int]:
    """Those with a split first; the others by chance."""

    def key(document: int) -> tuple[bool, bytes]:
        return document not in taken, hashlib.sha256(f"{seed} document {document}".encode()).digest()

    return sorted(documents, key=key)


def _neediest(
    counts: Counter[str],
    totals: Counter[str],
    has: Mapping[Split, Counter[str]],
    shares: Mapping[Split, float],
) -> Split:
    """The split that lacks most of what the document has, as a share of what it is to get."""

    def need(split: Split) -> tuple[float, float]:
        share = shares.get(split, 0.0)
        if not share:
            return float("-inf"), 0.0
        # first whether it lacks anything at all, then these strata: small splits must not go without
        overall = share - sum(has[split].values()) / max(1, totals.total())
        own = sum(n * (share * totals[s] - has[split][s]) / totals[s] for s, n in counts.items())
        return own / counts.total() + overall, share

    return max(SPLITS, key=need)
