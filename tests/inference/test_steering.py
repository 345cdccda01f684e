"""`POST /v1/steer`: units, positions, chats, sampling, refusals. The arithmetic is the engine's own test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
import torch

from tests.support.live_world import LiveWorld

PROMPT = "the red cat is in"
ADD = {"sae": "1-res-std", "feature": 5, "method": "add", "strength": 2.0}


def request(**changes: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": PROMPT, "temperature": 0, "max_new_tokens": 8, "interventions": [ADD]}
    return {**body, **changes}


async def steer(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/steer", json=request(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refusal(client: httpx.AsyncClient, status: int = 422, **changes: Any) -> dict[str, Any]:
    # httpx would refuse to write a NaN; other clients do not
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/steer", content=json.dumps(request(**changes)), headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def greedy(world: LiveWorld, prompt: str, count: int) -> list[int]:
    """Hugging Face's own greedy continuation."""
    ids = torch.tensor([[world.model.bos_id, *world.model.tokenize(prompt)]])
    out = world.model.hf.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, use_cache=True
    )
    return out[0, ids.shape[1] :].tolist()


async def test_default_is_plain_generation_and_steered_is_not(
    client: httpx.AsyncClient, world: LiveWorld
) -> None:
    answer = await steer(client)
    default, steered = answer["default"], answer["steered"]
    expected = greedy(world, PROMPT, 8)
    assert default["token_ids"] == expected[: len(default["token_ids"])]
    assert steered["token_ids"] != default["token_ids"]
    assert len(default["logprobs"]) == len(default["tokens"]) == len(default["token_ids"])
    assert answer["prompt_token_ids"] == [world.model.bos_id, *world.model.tokenize(PROMPT)]
    assert default["top_logprobs"] is None
    assert answer["shared"] is None
    assert answer["timings"]["run_ms"] > 0
    assert answer["provenance"]["saes"][0]["sae"] == "1-res-std"


async def test_strength_is_in_units_of_the_stored_maximum(
    client: httpx.AsyncClient, world: LiveWorld
) -> None:
    maximum = world.rows["1-res-std"][5]["max_activation"]
    by_default = await steer(client, n_logprobs=3)
    raw = {**ADD, "strength": 2.0 * maximum, "unit": "raw"}
    in_raw = await steer(client, n_logprobs=3, interventions=[raw])
    assert by_default["steered"]["token_ids"] == in_raw["steered"]["token_ids"]
    assert by_default["steered"]["logprobs"] == pytest.approx(in_raw["steered"]["logprobs"], abs=1e-5)
    clamped = await steer(client, interventions=[{**ADD, "method": "clamp"}])
    in_raw = await steer(client, interventions=[{**raw, "method": "clamp"}])
    assert clamped["steered"]["logprobs"] == pytest.approx(in_raw["steered"]["logprobs"], abs=1e-5)
    other = await steer(client, interventions=[{**raw, "strength": 2.0}])
    assert other["steered"]["logprobs"] != pytest.approx(in_raw["steered"]["logprobs"], abs=1e-3)


@pytest.mark.parametrize(
    "change", [{"strength": 0}, {"method": "scale", "strength": 1}, {"method": "orthogonal", "strength": 0}]
)
async def test_changing_nothing_is_the_default_token_for_token(
    client: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    answer = await steer(client, temperature=1.0, seed=7, interventions=[{**ADD, **change}])
    assert answer["steered"]["token_ids"] == answer["default"]["token_ids"]
    assert answer["steered"]["text"] == answer["default"]["text"]


async def test_equal_requests_give_equal_answers_and_the_seed_matters(client: httpx.AsyncClient) -> None:
    sampled = {"temperature": 1.5, "max_new_tokens": 16}
    first, again, other = [await steer(client, **sampled, seed=seed) for seed in (1, 1, 2)]
    assert first["default"] == again["default"]
    assert first["steered"] == again["steered"]
    assert first["default"]["token_ids"] != other["default"]["token_ids"]


async def test_features_and_vectors_mix_and_act_where_they_are_told(client: httpx.AsyncClient) -> None:
    vector = {"vector": [5.0] + [0.0] * 63, "hook": "blocks.2.hook_resid_post", "method": "add"}
    both = await steer(client, interventions=[ADD, vector])
    alone = await steer(client)
    assert both["steered"]["logprobs"] != alone["steered"]["logprobs"]
    late = await steer(client, interventions=[{**ADD, "positions": "generated"}])
    # the first token is drawn from the prompt alone
    assert late["steered"]["logprobs"][0] == pytest.approx(late["default"]["logprobs"][0], abs=1e-5)
    assert late["steered"]["logprobs"][1:] != pytest.approx(late["default"]["logprobs"][1:], abs=1e-4)


async def test_one_output_of_the_two(client: httpx.AsyncClient) -> None:
    both = await steer(client)
    only = await steer(client, outputs=["steered"])
    assert only["default"] is None
    assert only["steered"]["token_ids"] == both["steered"]["token_ids"]


async def test_top_logprobs_are_the_models_own(client: httpx.AsyncClient) -> None:
    answer = await steer(client, temperature=2.0, n_logprobs=4, outputs=["default"])
    output = answer["default"]
    for token_id, logprob, top in zip(
        output["token_ids"], output["logprobs"], output["top_logprobs"], strict=True
    ):
        assert len(top) == 4
        assert [one["logprob"] for one in top] == sorted((one["logprob"] for one in top), reverse=True)
        for one in top:
            if one["token_id"] == token_id:
                assert one["logprob"] == logprob


async def test_a_stop_string_ends_the_text_and_is_no_part_of_it(client: httpx.AsyncClient) -> None:
    whole = (await steer(client, outputs=["default"], max_new_tokens=16))["default"]
    stop = whole["text"][3:5]
    answer = await steer(client, outputs=["default"], max_new_tokens=16, stop=[stop])
    output = answer["default"]
    assert output["finish_reason"] == "stop"
    assert output["text"] == whole["text"][: whole["text"].index(stop)]
    assert output["token_ids"] == whole["token_ids"][: len(output["token_ids"])]


async def test_a_chat_goes_through_the_models_template(client: httpx.AsyncClient, world: LiveWorld) -> None:
    messages = [{"role": "user", "content": "the cat"}]
    answer = await steer(client, prompt=None, messages=messages)
    text = world.model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert answer["prompt_token_ids"] == world.model.tokenize(text)
    assert answer["steered"]["token_ids"] != answer["default"]["token_ids"]
    everywhere = await steer(client, prompt=None, messages=messages, skip_special_tokens=False)
    assert everywhere["steered"]["logprobs"] != answer["steered"]["logprobs"]


@pytest.mark.parametrize(
    ("changes", "field", "fact"),
    [
        ({"max_new_tokens": 0}, "#/max_new_tokens", "greater than or equal to 1"),
        ({"max_new_tokens": 10_000}, "#/max_new_tokens", "less than or equal to 1024"),
        ({"max_new_tokens": 600}, "#/max_new_tokens", "the limit is 512"),
        ({"temperature": float("nan")}, "#/temperature", ""),
        ({"top_p": 0}, "#/top_p", ""),
        ({"prompt": None}, "#/", "prompt or messages"),
        ({"prompt": ""}, "#/prompt", ""),
        ({"prompt": "cat", "messages": [{"role": "user", "content": "x"}]}, "#/", "prompt or messages"),
        ({"outputs": ["default", "default"]}, "#/outputs", "twice"),
        ({"colour": "red"}, "#/colour", "Extra inputs"),
    ],
)
async def test_bad_requests_name_the_field(
    client: httpx.AsyncClient, changes: dict[str, Any], field: str, fact: str
) -> None:
    problem = await refusal(client, **changes)
    assert problem["errors"][0]["field"].startswith(field.rstrip("/")) or fact in problem["detail"]
    assert fact in problem["detail"]


VECTOR = {"sae": None, "feature": None, "vector": [1.0] * 64, "hook": "blocks.1.hook_resid_post"}


@pytest.mark.parametrize(
    ("change", "field", "fact"),
    [
        ({"strength": float("nan")}, "/strength", "finite"),
        ({"strength": float("inf")}, "/strength", "finite"),
        ({"strength": -float("inf")}, "/strength", "finite"),
        ({"method": "scale", "unit": "raw"}, "/unit", "of the strength of add and clamp"),
        ({"sae": "1-bare"}, "/unit", "1-bare has no dashboards yet"),
        ({"positions": [999]}, "/positions/0", "999 is outside 0.."),
        (
            {**VECTOR, "vector": [1.0] * 63},
            "/vector",
            "has 63 numbers, but blocks.1.hook_resid_post has",
        ),
        ({**VECTOR, "vector": [1e-60] * 64}, "/vector", "positive and finite"),
        ({**VECTOR, "vector": [float("nan")] * 64}, "/vector", "finite"),
        ({**VECTOR, "hook": "blocks.9.hook_resid_post"}, "/hook", "layer 9"),
        ({**VECTOR, "hook": "nowhere"}, "/hook", "'nowhere' is not a hook"),
        ({**VECTOR, "hook": "blocks.1.hook_resid_mid"}, "/hook", "can be read, not written"),
    ],
)
async def test_bad_interventions_name_the_field(
    client: httpx.AsyncClient, change: dict[str, Any], field: str, fact: str
) -> None:
    problem = await refusal(client, interventions=[ADD, {**ADD, **change}])
    assert problem["errors"][0]["field"].startswith(f"#/interventions/1{field}")
    assert fact in problem["detail"]


async def test_a_feature_that_never_fired_has_no_unit(client: httpx.AsyncClient, world: LiveWorld) -> None:
    dead = next(row["idx"] for row in world.rows["0-res-topk"] if row["max_activation"] == 0)
    one = {"sae": "0-res-topk", "feature": dead, "method": "add", "strength": 1.0}
    problem = await refusal(client, interventions=[one])
    assert "never fired on its corpus" in problem["detail"]
    assert "unit raw" in problem["detail"]
    assert (await steer(client, interventions=[{**one, "unit": "raw", "strength": 9.0}]))["steered"]


async def test_what_does_not_exist_is_not_found(client: httpx.AsyncClient) -> None:
    problem = await refusal(client, 404, interventions=[{**ADD, "sae": "9-none"}])
    assert problem["sae"] == "9-none"
    problem = await refusal(client, 404, interventions=[{**ADD, "feature": 96}])
    assert (problem["index"], problem["last"]) == (96, 95)


async def test_an_intervention_that_breaks_the_model_is_refused_and_its_mates_go_on(
    client: httpx.AsyncClient,
) -> None:
    plain = await steer(client, max_new_tokens=32)
    wild = {**VECTOR, "vector": [3e38] * 64, "method": "add", "strength": 1.0}
    broken, mate = await asyncio.gather(
        client.post("/v1/steer", json=request(max_new_tokens=32, interventions=[wild] * 2)),
        steer(client, max_new_tokens=32),
    )
    assert broken.status_code == 422
    assert broken.json()["errors"][0]["field"] == "#/interventions"
    assert mate["steered"] == plain["steered"]


async def test_a_change_that_numbers_cannot_hold_names_its_strength(client: httpx.AsyncClient) -> None:
    wild = {**VECTOR, "vector": [3e38] * 64, "method": "add", "strength": 1e6}
    answer = await client.post("/v1/steer", json=request(interventions=[VECTOR, wild]))
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "#/interventions/1/strength"
    assert "the limit is 3.4e+38" in error["detail"]
