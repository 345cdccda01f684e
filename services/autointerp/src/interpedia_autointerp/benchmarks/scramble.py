"""A feature that means nothing: the material of a real one with its activations dealt out at random.

What an explainer and a scorer make of it is what they make of noise; a method whose score on real features is
no better has explained nothing.
"""

from __future__ import annotations

import random
from dataclasses import replace

from interpedia_autointerp.material import SPLITS, Task, Window


def scrambled(task: Task, seed: int = 0) -> Task:
    """The same texts in the same splits, as many of them firing as strongly as before, but by chance."""
    chance = random.Random(f"{seed} {task.feature}")
    windows: list[Window] = []
    for split in SPLITS:
        texts = list(task.of(split))
        labels = texts.copy()
        chance.shuffle(labels)
        windows += [_dealt(text, label, chance) for text, label in zip(texts, labels, strict=True)]
    note = "Control: the activations of this feature were dealt out at random."
    promoted = list(task.promoted)
    chance.shuffle(promoted)
    return replace(task, windows=tuple(windows), notes=(note,), promoted=tuple(promoted))


def _dealt(text: Window, label: Window, chance: random.Random) -> Window:
    """One window's text with another's activations, at positions by chance."""
    values = [0.0] * len(text.pieces)
    found = [value for value in label.values if value]
    for at, value in zip(
        chance.sample(range(len(values)), min(len(found), len(values))), found, strict=False
    ):
        values[at] = value
    return replace(text, values=tuple(values), stratum=label.stratum, weight=label.weight)
