"""The logit lens against the model's own modules, and its last layer against the model's predictions."""

from __future__ import annotations

import pytest
import torch

from interpedia_engine.effects import LensPlan, Pace, finish, read_lens
from interpedia_engine.errors import OutOfRange
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel
from tests.engine.architectures import load_random_model, save_random_model
from tests.engine.effects_world import ids_of, stream_at


def test_every_layer_by_hand(tiny: LanguageModel):
    tokens = ids_of(tiny)
    layers = finish(read_lens(tiny, tokens, LensPlan(k=4)))
    assert [layer.layer for layer in layers] == [0, 1, 2, 3]
    for layer in layers:
        with torch.no_grad():
            logits = tiny.hf.lm_head(
                tiny.hf.model.norm(stream_at(tiny, tokens, Hook("resid_post", layer.layer)))
            )
        expected = logits.softmax(-1)
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        assert len(layer.cells) == len(tokens)
        for position, cell in enumerate(layer.cells):
            top = expected[position].topk(4)
            assert cell.token_ids == top.indices.tolist()
            assert cell.probabilities == pytest.approx(top.values.tolist(), abs=1e-5)
            assert cell.entropy == pytest.approx(entropy[position].item(), abs=1e-4)
            if position + 1 == len(tokens):
                assert (cell.next_token_rank, cell.next_token_probability) == (None, None)
                continue
            ranks = expected[position].argsort(descending=True).tolist()
            assert cell.next_token_rank == ranks.index(tokens[position + 1])
            assert cell.next_token_probability == pytest.approx(
                expected[position, tokens[position + 1]].item(), abs=1e-5
            )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ["gemma2", "gpt2", "gpt_neox"])
def test_the_last_layer_is_the_models_prediction(architecture: str, tmp_path):
    model = load_random_model(save_random_model(architecture, tmp_path))
    tokens = (1, 40, 77, 301, 5)
    (last,) = finish(read_lens(model, tokens, LensPlan(layers=(model.shape.n_layers - 1,), k=3)))
    with torch.no_grad():
        expected = model.hf(torch.tensor([tokens]), use_cache=False).logits[0].softmax(-1).topk(3)
    assert [cell.token_ids for cell in last.cells] == expected.indices.tolist()
    ours = torch.tensor([cell.probabilities for cell in last.cells])
    torch.testing.assert_close(ours, expected.values, rtol=1e-4, atol=1e-5)


def test_a_selection_in_small_steps_is_the_same(tiny: LanguageModel):
    tokens = ids_of(tiny)
    whole = {layer.layer: layer.cells for layer in finish(read_lens(tiny, tokens, LensPlan()))}
    steps = read_lens(tiny, tokens, LensPlan(layers=(3, 1, 3), positions=(7, 2, 7)), Pace(1))
    n_steps = 0
    while True:
        try:
            progress = next(steps)
            assert progress.done <= progress.total
            n_steps += 1
        except StopIteration as end:
            some = end.value
            break
    assert n_steps == 1 + 2 * 3
    assert [layer.layer for layer in some] == [1, 3]
    for layer in some:
        for position, cell in zip((7, 2, 7), layer.cells, strict=True):
            other = whole[layer.layer][position]
            assert cell.token_ids == other.token_ids
            assert cell.probabilities == pytest.approx(other.probabilities, abs=1e-6)
            assert cell.next_token_rank == other.next_token_rank


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        (LensPlan(layers=(4,)), r"layers: 4 is outside 0\.\.3"),
        (LensPlan(layers=(-1,)), "layers: -1 is outside"),
        (LensPlan(layers=()), "layers: at least one"),
        (LensPlan(positions=(99,)), "positions: 99 is outside"),
        (LensPlan(positions=()), "positions: at least one"),
        (LensPlan(k=0), "k: 0 is outside 1..526"),
        (LensPlan(k=527), "k: 527 is outside"),
    ],
)
def test_refusals(tiny: LanguageModel, plan: LensPlan, match: str):
    with pytest.raises(OutOfRange, match=match):
        finish(read_lens(tiny, ids_of(tiny), plan))
