"""The frozen material of one feature: what explainers may read, and what scorers test on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from interpedia_autointerp.material.window import Split, Window
from interpedia_shared.ids import FeatureRef

TASK_FORMAT = 1

Status = Literal["ok", "insufficient", "dead"]
"""`dead`: it never fires. `insufficient`: too few examples, or too few documents, to explain and test it."""


@dataclass(frozen=True, slots=True)
class Population:
    """How often the feature fires in the build's corpus.

    Attributes:
        token_density: fraction of counted tokens on which it is non-zero.
        n_contexts, n_active_contexts: of the build.
        window_density: fraction of windows of `window_tokens` tokens in which it fires: how many of an
            active context's windows fire is estimated from the stored examples.
    """

    token_density: float = 0.0
    n_contexts: int = 0
    n_active_contexts: int = 0
    window_tokens: int = 32
    window_density: float = 0.0


@dataclass(frozen=True)
class Task:
    """Material of one feature.

    Attributes:
        feature: which.
        status, detail: whether there is enough, and if not why not, for people.
        windows: of all splits; splits share no document.
        promoted, suppressed: tokens whose logits the feature raises and lowers most, with the effect in nats.
        max_activation: on the corpus.
        depth: of the layer, from 0 to 1; late features tend to act on what comes next.
        is_verified: negatives beyond what is stored were found and checked by running the model.
        notes: what a reader of a score has to know about its material, in sentences.
        made_with: settings, version, corpus: what it can be made again from.
    """

    feature: FeatureRef
    status: Status
    windows: tuple[Window, ...] = ()
    detail: str | None = None
    promoted: tuple[tuple[str, float], ...] = ()
    suppressed: tuple[tuple[str, float], ...] = ()
    population: Population = field(default_factory=Population)
    max_activation: float = 0.0
    depth: float | None = None
    is_verified: bool = False
    notes: tuple[str, ...] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @cached_property
    def split_hash(self) -> str:
        """SHA-256 of everything in the task: the same hash, the same material."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def by_id(self) -> Mapping[str, Window]:
        """Windows by id."""
        return {window.id: window for window in self.windows}

    def of(self, split: Split, *, fires: bool | None = None) -> tuple[Window, ...]:
        """Windows of a split: all, those on which it fires (strongest first), or the silent ones."""
        found = [w for w in self.windows if w.split == split and fires in {None, w.fires}]
        if fires:
            found.sort(key=lambda w: -abs(w.max))
        return tuple(found)

    def with_windows(self, windows: Sequence[Window]) -> Task:
        """The same feature with other windows."""
        return replace(self, windows=tuple(windows))

    def to_json(self) -> dict[str, Any]:
        """As it is stored in `explanation_task.material`."""
        return {
            "format": TASK_FORMAT,
            "feature": str(self.feature),
            "status": self.status,
            "detail": self.detail,
            "windows": [window.to_json() for window in self.windows],
            "promoted": [list(pair) for pair in self.promoted],
            "suppressed": [list(pair) for pair in self.suppressed],
            "population": asdict(self.population),
            "max_activation": self.max_activation,
            "depth": self.depth,
            "is_verified": self.is_verified,
            "notes": list(self.notes),
            "made_with": dict(self.made_with),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Task:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it was written by a version that this one does not know.
        """
        if value["format"] != TASK_FORMAT:
            raise ValueError(f"task format {value['format']}, this reader knows {TASK_FORMAT}")
        return cls(
            feature=FeatureRef.parse(value["feature"]),
            status=value["status"],
            windows=tuple(Window.from_json(each) for each in value["windows"]),
            detail=value["detail"],
            promoted=tuple((text, effect) for text, effect in value["promoted"]),
            suppressed=tuple((text, effect) for text, effect in value["suppressed"]),
            population=Population(**value["population"]),
            max_activation=value["max_activation"],
            depth=value["depth"],
            is_verified=value["is_verified"],
            notes=tuple(value["notes"]),
            made_with=value["made_with"],
        )
