"""A small corpus and features on it whose rule is known, stored as dashboards store them; no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from interpedia_autointerp.material.backend import Trace
from interpedia_autointerp.material.source import Build, FeatureSource, Neighbour, Passage
from interpedia_shared.dashboards import (
    N_INTERVALS,
    REASON_RANDOM,
    REASON_TOP,
    Coactive,
    Examples,
    FeatureStats,
    Ranked,
)
from interpedia_shared.ids import FeatureRef
from interpedia_shared.tokens import Vocabulary

WORDS = [b"<bos>", b" river", b" dry", b" lake", *(f" word{n}".encode() for n in range(60))]
RIVER, DRY, LAKE = 1, 2, 3
LENGTH = 65
Rule = Callable[[Sequence[int]], list[float]]


def river_rule(ids: Sequence[int]) -> list[float]:
    """Fires on `river`, but not right after `dry`; how strongly depends on the word before."""
    return [
        0.0 if token != RIVER or at == 0 or ids[at - 1] == DRY else 1.0 + (ids[at - 1] * 7 % 90) / 10
        for at, token in enumerate(ids)
    ]


def lake_rule(ids: Sequence[int]) -> list[float]:
    """Fires on `lake`: the neighbour."""
    return [5.0 if token == LAKE and at else 0.0 for at, token in enumerate(ids)]


def never_rule(ids: Sequence[int]) -> list[float]:
    """Dead."""
    return [0.0] * len(ids)


@dataclass
class MadeUp:
    """Documents of two contexts each."""

    n_documents: int = 120
    seed: int = 0
    share: float = 0.25
    passages: list[Passage] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        for index in range(2 * self.n_documents):
            ids = rng.integers(4, len(WORDS), LENGTH)
            ids[0] = 0
            for token, share in ((RIVER, self.share), (LAKE, 0.2)):
                if rng.random() < share:
                    at = int(rng.integers(2, LENGTH))
                    ids[at] = token
                    # one river in three is dry
                    if token == RIVER and rng.random() < 1 / 3:
                        ids[at - 1] = DRY
            self.passages.append(Passage(index, ids.astype(np.uint32), index // 2))

    @property
    def build(self) -> Build:
        return Build(
            model="tiny",
            sae="1-res",
            version_id=1,
            corpus_id=1,
            n_contexts=len(self.passages),
            n_tokens=len(self.passages) * (LENGTH - 1),
            first=1,
            vocabulary=Vocabulary(WORDS),
            depth=0.5,
            made_from={"corpus": "made-up"},
        )

    def source(self, rule: Rule = river_rule, *, n_top: int = 12, per_interval: int = 4, most: int = 10**6):
        """What dashboards would keep of a feature."""
        stats, examples = self._stored(rule, n_top, per_interval, most)
        _, near = self._stored(lake_rule, n_top, 0, most)
        return FeatureSource(
            self.build, 7, stats, examples, {p.index: p for p in self.passages}, [Neighbour(9, near)]
        )

    def _stored(self, rule: Rule, n_top: int, per_interval: int, most: int) -> tuple[FeatureStats, Examples]:
        values = {p.index: rule(p.ids.tolist()) for p in self.passages}
        active = sorted((i for i, v in values.items() if any(v)), key=lambda i: -max(values[i]))[:most]
        for index in set(values) - set(active):
            values[index] = [0.0] * LENGTH
        largest = max((max(values[i]) for i in active), default=0.0)
        interval = {i: min(N_INTERVALS, max(1, int(np.ceil(5 * max(values[i]) / largest)))) for i in active}
        kept = [(i, REASON_TOP) for i in active[:n_top]]
        for k in range(1, N_INTERVALS + 1):
            others = sorted((i for i in active[n_top:] if interval[i] == k), key=_draw)
            kept += [(i, k) for i in others[:per_interval]]
        silent = sorted((i for i in values if i not in interval), key=_draw)[:5]
        kept += [(i, REASON_RANDOM) for i in silent]
        sparse = [[(at, v) for at, v in enumerate(values[i]) if v] for i, _ in kept]
        flat = [pair for row in sparse for pair in row]
        examples = Examples(
            contexts=np.array([i for i, _ in kept], np.uint32),
            reasons=np.array([reason for _, reason in kept], np.uint8),
            repeats=np.zeros(len(kept), np.bool_),
            offsets=np.cumsum([0, *map(len, sparse)]).astype(np.uint32),
            positions=np.array([at for at, _ in flat], np.uint16),
            values=np.array([v for _, v in flat], np.float32),
        )
        stats = FeatureStats(
            n_active_tokens=sum(sum(map(bool, values[i])) for i in active),
            n_active_contexts=len(active),
            max_activation=largest,
            interval_counts=np.array(
                [sum(k == each for each in interval.values()) for k in range(1, N_INTERVALS + 1)], np.uint32
            ),
            top_logits=Ranked(np.array([RIVER, LAKE], np.uint32), np.array([2.0, 1.0], np.float32)),
            coactive=Coactive(),
        )
        return stats, examples


def _draw(index: int) -> bytes:
    return hashlib.sha256(str(index).encode()).digest()


@dataclass
class RuleBackend:
    """Answers as a model would in which the feature is the rule."""

    rule: Rule = river_rule
    rows: list[list[int]] = field(default_factory=list)

    async def on_tokens(self, feature: FeatureRef, rows: Sequence[Sequence[int]]) -> list[Trace]:
        self.rows += [list(row) for row in rows]
        return [
            Trace(tuple(row), tuple(WORDS[token].decode() for token in row), tuple(self.rule(row)))
            for row in rows
        ]

    async def on_texts(self, feature: FeatureRef, texts: Sequence[str]) -> list[Trace]:
        ids = [[0, *(WORDS.index(b" " + word.encode()) for word in text.split())] for text in texts]
        return await self.on_tokens(feature, ids)


class BagOfWords:
    """An encoder that counts words: closeness is having words in common."""

    model = "bag-of-words"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 384), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 384] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
