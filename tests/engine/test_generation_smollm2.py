"""Steering the demo model with the demo SAE, against transformers with a hook written by hand."""

import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.generation import Decoder, GenerationRequest, StreamedText, chat_tokens
from interpedia_engine.hooks import Hook
from interpedia_engine.interventions import FeatureChange, RowChanges, Window, edited
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import SAE, load_sae
from tests.engine.generating import GREEDY, hugging_face, prompt_of, run, tokens_of
from tests.support.demo_model import REPO

pytestmark = [pytest.mark.real_model, pytest.mark.filterwarnings("ignore")]
HOOK = Hook("resid_post", 15)
TEXT = "My favourite animal is"


@pytest.fixture(scope="module")
def sae() -> SAE:
    return load_sae(REPO / "examples" / "saes" / "15-res-3k")


def test_eight_interventions_in_one_batch_equal_one_by_one_by_hand(smollm2: LanguageModel, sae: SAE):
    prompt = prompt_of(smollm2, TEXT)
    x = capture(smollm2, torch.tensor([prompt]), [HOOK])[HOOK]
    active = sae.encode(x)[0, 1:].sum(dim=0).topk(4).indices.tolist()
    methods = [("add", 30.0), ("clamp", 12.0), ("scale", 3.0), ("clamp", 0.0)]
    changes = [(index, *method) for index, method in zip(active, methods, strict=True)]
    asked = [
        GenerationRequest(prompt, 12, (FeatureChange(sae, HOOK, HOOK, *change),), GREEDY)
        for change in changes
    ]
    longer = prompt_of(smollm2, "Once upon a time there was a small house by the sea, and")
    asked += [GenerationRequest(prompt, 12, sampling=GREEDY), GenerationRequest(longer, 12, sampling=GREEDY)]
    events = run(Decoder(smollm2, max_rows=8, max_total_tokens=1024), asked)
    assert tokens_of(events[4]) == hugging_face(smollm2, prompt, 12)
    assert tokens_of(events[5]) == hugging_face(smollm2, longer, 12)
    for got, change in zip(events, changes, strict=False):
        assert tokens_of(got) == steered_by_hand(smollm2, sae, prompt, *change)
    assert any(tokens_of(got) != tokens_of(events[4]) for got in events[:4])


def test_an_ablated_feature_of_the_demo_reads_zero(smollm2: LanguageModel, sae: SAE):
    tokens = torch.tensor([prompt_of(smollm2, TEXT)])
    f = sae.encode(capture(smollm2, tokens, [HOOK])[HOOK])
    active = f[0, 1:].sum(dim=0).topk(8).indices.tolist()
    rows = [RowChanges((FeatureChange(sae, HOOK, HOOK, index, "ablate"),)) for index in active]
    once = [RowChanges((FeatureChange(sae, HOOK, HOOK, index, "clamp", 0.0),)) for index in active]
    left = []
    for changes in (rows, once):
        batch = tokens.expand(len(changes), -1)
        with edited(smollm2, changes, Window.whole(*batch.shape)):
            read = sae.encode(capture(smollm2, batch, [HOOK])[HOOK])
        left.append(read[torch.arange(len(active)), :, torch.tensor(active)])
    assert (left[0] == 0).all()
    assert (left[1] != 0).any()  # taking out f·d once is not enough where w·d < 1


def steered_by_hand(model: LanguageModel, sae: SAE, prompt, index: int, method: str, s: float) -> list[int]:
    is_first = True

    def hook(_module, _args, h):
        nonlocal is_first
        f = sae.encode(h)
        new = f.clone()
        value = f[..., index]
        new[..., index] = {"add": value + s, "clamp": s, "scale": s * value}[method]
        out = h + sae.decode(new, h) - sae.decode(f, h)
        if is_first:
            out[:, 0] = h[:, 0]
        is_first = False
        return out

    handle = model.hf.base_model.layers[15].register_forward_hook(hook)
    try:
        return hugging_face(model, prompt, 12)
    finally:
        handle.remove()


def test_a_chat_ends_by_itself_and_its_emoji_are_whole(smollm2: LanguageModel):
    chat = chat_tokens(smollm2, [{"role": "user", "content": "Answer with one emoji: a smiling face"}])
    theirs = smollm2.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Answer with one emoji: a smiling face"}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(chat.ids) == theirs
    request = GenerationRequest(chat.ids, 60, sampling=GREEDY, eos_ids=smollm2.eos_ids)
    (events,) = run(Decoder(smollm2, max_rows=1, max_total_tokens=512), [request])
    text = StreamedText(smollm2.vocabulary, hidden_ids=smollm2.eos_ids)
    said = "".join([*(text.push(event.token_id) for event in events), text.finish()])
    assert "\ufffd" not in said
    assert "<|im_end|>" not in said
    assert said == smollm2.tokenizer.decode(tokens_of(events), skip_special_tokens=True)
