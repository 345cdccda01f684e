"""Sampling does what it says: as transformers' processors do, and draws follow the distribution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from interpedia_engine.generation import Decoder, GenerationRequest, Sampling
from interpedia_engine.generation.sampling import Draws, choose, distribution, penalised
from interpedia_engine.models import LanguageModel
from tests.engine.generating import alone, prompt_of, run, tokens_of

PROMPT, GENERATED = (1, 5, 5, 9), (7, 7, 5)


def logits_of(seed: int, size: int = 500) -> torch.Tensor:
    return 3.0 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 100),
    temperature=st.floats(0.1, 3.0),
    top_k=st.sampled_from([0, 1, 5, 100, 10_000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.02, 0.9]),
    repetition=st.sampled_from([1.0, 1.3, 0.7]),
)
def test_the_distribution_equals_transformers(seed, temperature, top_k, top_p, min_p, repetition):
    logits = logits_of(seed)
    theirs = LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(repetition), TemperatureLogitsWarper(temperature)]
    )
    theirs += [TopKLogitsWarper(top_k)] if top_k else []
    theirs += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    theirs += [MinPLogitsWarper(min_p)] if min_p else []
    ids = torch.tensor([[*PROMPT, *GENERATED]])
    expected = theirs(ids, logits[None].clone())[0].softmax(-1)
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty=repetition)
    ours = distribution(logits, sampling, prompt=PROMPT, generated=GENERATED)
    torch.testing.assert_close(ours / ours.sum(), expected, rtol=1e-3, atol=1e-6)


def test_a_wide_nucleus_is_found_beyond_the_first_guess():
    probabilities = distribution(torch.zeros(10_000), Sampling(top_p=0.8))
    assert int((probabilities > 0).sum()) == pytest.approx(8000, abs=2)


def test_frequency_and_presence_count_what_was_generated():
    logits = logits_of(1)
    ours = penalised(
        logits, Sampling(frequency_penalty=0.5, presence_penalty=0.25), prompt=PROMPT, generated=GENERATED
    )
    expected = logits.clone()
    expected[7] -= 2 * 0.5 + 0.25
    expected[5] -= 0.5 + 0.25
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.5, top_k=4), Sampling(min_p=0.1)])
def test_draws_follow_the_distribution(sampling: Sampling):
    logits = logits_of(3, 12)
    expected = distribution(logits, sampling)
    expected = expected / expected.sum()
    row = Draws(sampling, (1,))
    n = 4000
    counts = torch.zeros(12)
    for _ in range(n):
        (choice,) = choose(logits[None], [row])
        assert choice is not None
        counts[choice.token] += 1
    assert (counts[expected == 0] == 0).all()
    spread = (expected * (1 - expected) / n).sqrt()
    assert ((counts / n - expected).abs() <= 5 * spread + 1e-9).all()


def test_a_row_that_is_not_finite_is_told_apart_from_its_mates():
    logits = torch.stack([logits_of(1), logits_of(2), logits_of(3), logits_of(4)])
    logits[1, 7], logits[2, 9] = torch.nan, torch.inf
    rows = [Draws(Sampling(seed=5), (1,)) for _ in range(4)]
    choices = choose(logits, rows)
    assert [choice is None for choice in choices] == [False, True, True, False]
    (again,) = choose(logits[3:], [Draws(Sampling(seed=5), (1,))])
    assert again == choices[3]


def test_a_temperature_near_0_takes_the_most_probable_token():
    logits = logits_of(1)
    for temperature in (1e-5, 1e-7, 1e-37, 1e-38, 1e-40):
        for others in ({}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}):
            (choice,) = choose(logits[None], [Draws(Sampling(temperature, **others), PROMPT)])
            assert choice is not None
            assert choice.token == int(logits.argmax())


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_penalties_past_what_a_float_holds_fail_the_row_alone(temperature: float):
    logits = logits_of(1)
    prompt = tuple(logits.topk(3).indices.tolist())
    rows = [Draws(Sampling(temperature, repetition_penalty=value), prompt) for value in (1e-38, 1.2)]
    failed, mate = choose(logits.expand(2, -1) * 100, rows)
    assert failed is None
    assert mate is not None


class TestSeeds:
    def request(self, model: LanguageModel, **fields) -> GenerationRequest:
        return GenerationRequest(prompt_of(model, "the river"), 20, sampling=Sampling(**fields))

    def test_equal_seeds_give_equal_texts_whoever_is_beside(self, tiny: LanguageModel):
        asked = [self.request(tiny, seed=seed) for seed in (1, 2, 1, 3)]
        together = [tokens_of(one) for one in run(Decoder(tiny, max_rows=4, max_total_tokens=256), asked)]
        assert together[0] == together[2] == tokens_of(alone(tiny, asked[0]))
        assert together[1] == tokens_of(alone(tiny, asked[1]))
        assert len({tuple(one) for one in together}) == 3

    @pytest.mark.parametrize(
        "fields",
        [{"temperature": 0.3}, {"top_k": 2}, {"top_p": 0.2}, {"min_p": 0.5}, {"repetition_penalty": 3.0}],
    )
    def test_each_parameter_changes_what_comes(self, tiny: LanguageModel, fields):
        assert tokens_of(alone(tiny, self.request(tiny, **fields))) != tokens_of(
            alone(tiny, self.request(tiny))
        )

    def test_a_frequency_penalty_ends_repetition(self, tiny: LanguageModel):
        said = tokens_of(alone(tiny, GenerationRequest((1, 5), 60, sampling=Sampling(temperature=0.0))))
        penalty = Sampling(
            temperature=0.0, frequency_penalty=2.0, presence_penalty=2.0, repetition_penalty=1.5
        )
        varied = tokens_of(alone(tiny, GenerationRequest((1, 5), 60, sampling=penalty)))
        assert len(set(varied)) > len(set(said))
