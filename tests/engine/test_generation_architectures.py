"""Every architecture with a layout generates as transformers does, sliding windows and soft caps included."""

from pathlib import Path

import pytest
import torch
import transformers

from interpedia_engine.errors import OutOfRange
from interpedia_engine.generation import Decoder, GenerationRequest
from interpedia_engine.generation.masks import longest_context
from interpedia_engine.hooks import Hook
from interpedia_engine.interventions import DirectionChange
from tests.engine.architectures import CONFIGS, load_random_model, save_random_model
from tests.engine.generating import GREEDY, hugging_face, run, tokens_of

LENGTHS = (5, 70, 1, 33)
WINDOWED = {
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "qwen2": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1},
    "gemma2": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2},
}
CASES = [(name, {}, 20) for name in CONFIGS]
CASES += [(name, fields, chunk) for name, fields in WINDOWED.items() for chunk in (20, 512)]


def configured(architecture: str, fields: dict, folder: Path, monkeypatch: pytest.MonkeyPatch):
    class_name, standard = CONFIGS[architecture]
    layers = {"num_hidden_layers": len(fields["layer_types"])} if "layer_types" in fields else {}
    monkeypatch.setitem(CONFIGS, architecture, (class_name, standard | fields | layers))
    return load_random_model(save_random_model(architecture, folder))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("architecture", "fields", "chunk"), CASES, ids=str)
def test_greedy_equals_transformers(architecture, fields, chunk, tmp_path: Path, monkeypatch):
    model = configured(architecture, fields, tmp_path, monkeypatch)
    prompts = [
        tuple(torch.randint(3, 526, (n,), generator=torch.Generator().manual_seed(n)).tolist())
        for n in LENGTHS
    ]
    push = DirectionChange(torch.ones(48), Hook("resid_post", 1), "add", 5.0)
    asked = [GenerationRequest(prompt, 24, sampling=GREEDY) for prompt in prompts]
    asked.insert(2, GenerationRequest(prompts[0], 24, (push,), GREEDY))  # a steered mate
    events = run(Decoder(model, max_rows=8, max_total_tokens=1024, prefill_tokens=chunk), asked)
    events.pop(2)
    for prompt, got in zip(prompts, events, strict=True):
        assert tokens_of(got) == hugging_face(model, prompt, 24)


def test_the_window_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without its window the same model says something else, so that the test above means something."""
    prompt = tuple(torch.randint(3, 526, (70,), generator=torch.Generator().manual_seed(70)).tolist())
    narrow = configured("mistral", {"sliding_window": 16}, tmp_path / "narrow", monkeypatch)
    wide = configured("mistral", {"sliding_window": None}, tmp_path / "wide", monkeypatch)
    assert hugging_face(narrow, prompt, 24) != hugging_face(wide, prompt, 24)


def test_rows_end_where_rotary_frequencies_would_change_for_the_batch(tmp_path: Path, monkeypatch):
    rope = {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 64,
    }
    model = configured("llama", {"rope_parameters": rope}, tmp_path, monkeypatch)
    assert isinstance(model.hf, transformers.LlamaForCausalLM)
    assert longest_context(model) == 64
    decoder = Decoder(model, max_rows=2, max_total_tokens=512)
    with pytest.raises(OutOfRange, match="more than the 64"):
        decoder.check(GenerationRequest((1,) * 60, 5))
