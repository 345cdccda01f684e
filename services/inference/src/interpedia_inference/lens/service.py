"""Read the logit lens of a text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from interpedia_engine.effects import LensLayer as EngineLayer
from interpedia_engine.effects import LensPlan, read_lens
from interpedia_engine.hooks import Hook
from interpedia_inference.admission.cost import Cost
from interpedia_inference.refusals import check_positions, outside, over_limit
from interpedia_inference.visits.visit import Visit
from interpedia_shared.contracts.live.activations import LensCell, LensLayer, LensOut, LensRequest

MAX_ENTRIES = 100_000
"""Tokens in one answer: layers × positions × k."""
MAX_CELLS = 20_000
"""Distributions computed for one answer: layers × positions."""


async def read_text(visit: Visit, body: LensRequest) -> LensOut:
    """Run the text once and turn each layer's stream into a prediction.

    Raises:
        Invalid: a layer or position outside its range, or an answer that would be too large.
        Problem: see `Visit`.
    """
    tokens = await visit.tokenize(body.text, prepend_bos=body.prepend_bos, field="#/text")
    shape = visit.model.shape
    layers = sorted(set(_layers(body, shape.n_layers)))
    positions = list(range(len(tokens.ids))) if body.positions is None else body.positions
    check_positions(positions, len(tokens.ids))
    n_cells = len(layers) * len(positions)
    if n_cells > MAX_CELLS:
        raise over_limit("#/positions", "layers × positions", limit=MAX_CELLS, value=n_cells)
    if n_cells * body.k > MAX_ENTRIES:
        raise over_limit("#/k", "layers × positions × k", limit=MAX_ENTRIES, value=n_cells * body.k)
    # Unembedding a stream costs about as much as d_vocab / (12 n_layers d_model) of a token's forward pass.
    work = len(tokens.ids) + n_cells * shape.d_vocab // (12 * shape.n_layers * shape.d_model)
    visit.charge(Cost(tokens=work, bytes=4 * len(layers) * len(tokens.ids) * shape.d_model))
    plan = LensPlan(layers=tuple(layers), positions=tuple(positions), k=body.k)
    found = await visit.call(lambda: read_lens(visit.model, tokens.ids, plan), work=work)
    return LensOut(
        tokens=visit.strings(tokens.ids),
        token_ids=tokens.ids,
        positions=positions,
        layers=await asyncio.to_thread(_written, visit, found),
        timings=visit.timings(),
        provenance=visit.provenance(bos=tokens.has_bos, saes=()),
    )


def _layers(body: LensRequest, n_layers: int) -> Sequence[int]:
    if body.layers is None:
        return range(n_layers)
    for number, layer in enumerate(body.layers):
        if not 0 <= layer < n_layers:
            raise outside(
                f"#/layers/{number}", layer, first=0, last=n_layers - 1, of="the layers of the model"
            )
    return body.layers


def _written(visit: Visit, found: Sequence[EngineLayer]) -> list[LensLayer]:
    return [
        LensLayer(
            layer=layer.layer,
            hook=Hook("resid_post", layer.layer).name,
            cells=[
                LensCell(
                    token_ids=cell.token_ids,
                    tokens=visit.strings(cell.token_ids),
                    probabilities=cell.probabilities,
                    entropy=cell.entropy,
                    next_token_rank=cell.next_token_rank,
                    next_token_probability=cell.next_token_probability,
                )
                for cell in layer.cells
            ],
        )
        for layer in found
    ]
