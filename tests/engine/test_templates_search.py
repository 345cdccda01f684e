"""Rendering by a tokenizer, and the search: by parts on the tiny model, for its answer on the demo model."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch

from interpedia_engine.effects import (
    AttributionPlan,
    Dictionary,
    Pace,
    attribute,
    exact_effects,
    finish,
)
from interpedia_engine.effects.cases import FeatureKey
from interpedia_engine.errors import BadTemplate, MissingInput, OutOfRange
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import load_sae
from interpedia_engine.templates import (
    SearchPlan,
    bundled,
    bundled_ids,
    parse_template,
    render,
    search_template,
)
from interpedia_engine.templates.rendering import rendering
from interpedia_engine.templates.report import wilson
from tests.engine.effects_world import hooked_logits, make
from tests.support.demo_model import REPO

WORDS = ["time", "blue", "bird", "river", "house", "music", "when", "which", "one", "will"]
"""Each is one token of the tiny tokenizer behind a space."""
TINY: dict[str, Any] = {
    "id": "tiny",
    "variants": [
        {"text": "the {A} and the {B} were by the {A} and the", "good": [" {B}"], "bad": [" {A}"]},
        {"text": "the {B} and the {A} were by the {A} and the", "good": [" {B}"], "bad": [" {A}"]},
    ],
    "slots": {"A": {"values": WORDS}, "B": {"values": WORDS}, "C": {"values": WORDS}},
    "constraints": ["distinct(A, B, C)", "single_token(A, B, C)"],
    "corrupt": {"B": "{C}"},
    "roles": {"A again": "A#2", "B": "B", "end": "last"},
}


def turned(template: dict[str, Any]) -> dict[str, Any]:
    """Good answers for bad ones."""
    variants = [one | {"good": one["bad"], "bad": one["good"]} for one in template["variants"]]
    return template | {"variants": variants}


class TestRendering:
    def test_tokens_answers_and_roles(self, tiny: LanguageModel):
        rendered = render(parse_template(TINY), tiny, n=12, seed=1)
        assert len({prompt.text for prompt in rendered.prompts}) == 12
        assert [prompt.variant for prompt in rendered.prompts] == [0, 1] * 6
        for prompt in rendered.prompts:
            case = prompt.case
            assert case.tokens == (1, *tiny.tokenize(prompt.text))
            assert case.corrupt == (1, *tiny.tokenize(prompt.corrupt_text or ""))
            assert len(case.corrupt) == len(case.tokens)
            for text, token in zip(prompt.good + prompt.bad, case.metric.good + case.metric.bad, strict=True):
                assert tiny.tokenize(prompt.text + text) == [*tiny.tokenize(prompt.text), token]
            words = prompt.text.split()
            a, b = (words[1], words[4]) if prompt.variant == 0 else (words[4], words[1])
            assert (prompt.good, prompt.bad) == ((f" {b}",), (f" {a}",))
            spelled = {
                role: b"".join(tiny.vocabulary[case.tokens[i]] for i in positions).decode()
                for role, positions in prompt.roles.items()
            }
            assert spelled.pop("end").strip() == "the"
            assert spelled == {"A again": f" {a}", "B": f" {b}"}

    def test_a_seed_is_a_seed_and_more_begins_with_the_same(self, tiny: LanguageModel):
        template = parse_template(TINY)
        few, again, more, other = (
            [prompt.text for prompt in render(template, tiny, n=n, seed=seed).prompts]
            for n, seed in ((8, 3), (8, 3), (20, 3), (8, 4))
        )
        assert few == again == more[:8]
        assert few != other

    def test_where_there_are_few_there_are_few(self, tiny: LanguageModel):
        small = TINY | {"slots": {name: {"values": WORDS[:3]} for name in "ABC"}}
        rendered = render(parse_template(small), tiny, n=64)
        assert len(rendered.prompts) == 12, "6 ordered pairs in 2 wordings"
        assert rendered.rejected["the prompt was drawn before"] > 100

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"slots": {n: {"values": ["zebra"]} for n in "ABC"}}, r"distinct\(A, B, C\) does not hold"),
            (
                {"slots": {n: {"values": ["zebra", "quagga", "gnu"]} for n in "ABC"}},
                r"single_token\(A, B, C\)",
            ),
            (
                {"variants": [{"text": "{A} {B}", "good": ["{C}qqq"]}]},
                r"the good answer '\{C\}qqq' is not one token",
            ),
            (
                {"variants": [{"text": "{A} {B}", "good": [" bird"], "bad": [" bird"]}]},
                "good answer is a bad one",
            ),
            ({"variants": [{"text": "{A} {B}", "good": [{"digits_above": "A"}]}]}, "A is not a digit"),
            ({"variants": [{"text": "{A} {B}", "good": [" bird", " bird"]}]}, None),
            ({"corrupt": {"B": "{C} tree"}}, "the corrupt prompt has another number of tokens"),
            ({"corrupt": {"B": "{B}"}}, "the corrupt prompt is the same text"),
        ],
    )
    def test_what_this_tokenizer_cannot_write(
        self, tiny: LanguageModel, change: dict[str, Any], reason: str | None
    ):
        template = parse_template(TINY | {"roles": {}} | change)
        if reason is None:
            assert len(render(template, tiny, n=2).prompts) == 2
            return
        with pytest.raises(BadTemplate, match=f"template: gives 0 prompts with this tokenizer: .*{reason}"):
            render(template, tiny, n=2)

    def test_digits(self, tiny: LanguageModel):
        template = parse_template(
            {
                "text": "from 1{T}2 to 1",
                "good": [{"digits_above": "T"}],
                "bad": [{"digits_below": "T"}],
                "slots": {"T": {"range": [3, 8]}},
            }
        )
        for prompt in render(template, tiny, n=6).prompts:
            digit = prompt.text[6]
            assert prompt.good == tuple(d for d in "0123456789" if d > digit)
            assert prompt.bad == tuple(d for d in "0123456789" if d < digit)

    @pytest.mark.parametrize("n", [1, 0, 1025])
    def test_numbers(self, tiny: LanguageModel, n: int):
        with pytest.raises(OutOfRange, match=f"n: {n} is outside 2..1024"):
            render(parse_template(TINY), tiny, n=n)

    def test_a_prompt_past_the_context(self, tiny: LanguageModel):
        long = {"text": "{A}" + " zq" * 600, "good": [" bird"], "slots": {"A": {"values": ["a", "b"]}}}
        with pytest.raises(BadTemplate, match="more than 512 tokens"):
            render(parse_template(long), tiny, n=2)

    def test_prompts_may_be_kept_short(self, tiny: LanguageModel):
        longest = max(len(one.case.tokens) for one in render(parse_template(TINY), tiny, n=4).prompts)
        assert finish(rendering(parse_template(TINY), tiny, n=4, max_tokens=longest))
        with pytest.raises(BadTemplate, match=f"more than {longest - 1} tokens"):
            finish(rendering(parse_template(TINY), tiny, n=4, max_tokens=longest - 1))

    def test_a_huge_prompt_is_not_even_tokenised(self, tiny: LanguageModel):
        slots = {"A": {"values": ["a" * 200, "b" * 200]}}
        with pytest.raises(BadTemplate, match="more than 8000 characters"):
            render(parse_template({"text": "{A}" * 60, "good": [" bird"], "slots": slots}), tiny, n=2)

    def test_a_draw_is_a_step(self, tiny: LanguageModel):
        small = TINY | {"slots": {name: {"values": WORDS[:3]} for name in "ABC"}}
        steps, n_steps = rendering(parse_template(small), tiny, n=64), 0
        while True:
            try:
                next(steps)
            except StopIteration as end:
                rendered = end.value
                break
            n_steps += 1
        assert n_steps == len(rendered.prompts) + sum(rendered.rejected.values())

    def test_roles_cover_every_token_that_shares_a_character(self, tiny: LanguageModel):
        values = ["né€🜀x", " €", "🜀🜀", "bird"]
        template = parse_template(
            {
                "text": "z{A}{B} q {A}",
                "good": [" bird"],
                "slots": {"A": {"values": values}, "B": {"values": values}},
                "roles": {"first": "A#1", "b": "B", "again": "A#2"},
            }
        )
        for prompt in render(template, tiny, n=8).prompts:
            encoded = tiny.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
            middle = prompt.text.index(" q ", 1)
            a = prompt.text[middle + 3 :]
            spans = {
                "first": (1, 1 + len(a)),
                "b": (1 + len(a), middle),
                "again": (middle + 3, len(prompt.text)),
            }
            for role, (start, stop) in spans.items():
                places = enumerate(encoded["offset_mapping"], start=1)
                expected = tuple(i for i, (a, b) in places if a < stop and b > start)
                assert prompt.roles[role] == expected


@pytest.fixture(scope="module")
def dictionaries(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> list[Dictionary]:
    folder = tmp_path_factory.mktemp("saes")
    return [
        make(folder, tiny.shape, Hook("resid_post", 1), "topk"),
        make(folder, tiny.shape, Hook("mlp_in", 2), "transcoder"),
        make(folder, tiny.shape, Hook("mlp_pre", 2), "identity"),
    ]


@pytest.fixture(scope="module")
def doable(tiny: LanguageModel, dictionaries: list[Dictionary]) -> dict[str, Any]:
    """The template or its turned twin: a random model is right on one of them."""
    result = finish(search_template(tiny, dictionaries[:1], parse_template(TINY), SearchPlan(n=6, k=1)))
    return TINY if result["can_do"] else turned(TINY)


PLAN = SearchPlan(n=6, k=8, seed=0)


@pytest.fixture(scope="module")
def found(tiny: LanguageModel, dictionaries: list[Dictionary], doable: dict[str, Any]) -> dict[str, Any]:
    with torch.inference_mode():
        return finish(search_template(tiny, dictionaries, parse_template(doable), PLAN))


class TestSearch:
    def test_it_is_finite_json(self, found: dict[str, Any]):
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_effects_are_the_exact_ones(self, tiny, dictionaries, doable, found):
        cases = [prompt.case for prompt in render(parse_template(doable), tiny, n=6, seed=0).prompts]
        names = [dictionary.name for dictionary in dictionaries]
        keys = [FeatureKey(names.index(one["sae"]), one["index"]) for one in found["features"]]
        assert len(keys) == 8
        effects = finish(exact_effects(tiny, cases, dictionaries, keys))
        for feature, row in zip(found["features"], effects, strict=True):
            mean = sum(row) / 6
            assert feature["effect"] == pytest.approx(mean, abs=1e-4)
            assert feature["effect_se"] == pytest.approx(torch.tensor(row).std().item() / 6**0.5, abs=1e-4)
            assert feature["consistency"] == pytest.approx(sum(one * mean > 0 for one in row) / 6)
            assert feature["by_variant"] == pytest.approx([sum(row[0::2]) / 3, sum(row[1::2]) / 3], abs=1e-4)
            assert feature["n_active"] == sum(one != 0 for one in row)
            roles = feature["by_role"]
            assert set(roles) == {"A again", "B", "end", "other"}
            assert sum(roles.values()) == pytest.approx(feature["attribution"], abs=1e-4)
        sizes = [abs(one["effect"]) for one in found["features"]]
        assert sizes == sorted(sizes, reverse=True)
        assert -1 <= found["agreement"] <= 1

    def test_accuracy_by_hand(self, tiny, doable, found):
        metrics = []
        for prompt in render(parse_template(doable), tiny, n=6, seed=0).prompts:
            with torch.no_grad():
                logits = hooked_logits(tiny, prompt.case.tokens, [])[-1]
            metrics.append((logits[prompt.case.metric.good[0]] - logits[prompt.case.metric.bad[0]]).item())
        assert [one["metric"] for one in found["prompts"]] == pytest.approx(metrics, abs=1e-4)
        assert found["accuracy"]["correct"] == sum(one > 0 for one in metrics)
        assert found["accuracy"]["metric_mean"] == pytest.approx(sum(metrics) / 6, abs=1e-4)

    def test_controls_that_this_tokenizer_cannot_write_are_passed_by(self, tiny, dictionaries, doable, found):
        """The tiny tokenizer spells names and countries in many tokens, but brackets and digits in one."""
        names = [one["template"] for one in found["controls"]]
        assert names == ["bracket-closing"]
        for feature in found["features"]:
            size, beside = abs(feature["effect"]), abs(feature["by_control"]["bracket-closing"])
            assert feature["contrast"] == pytest.approx(size - beside)
            assert feature["specificity"] == pytest.approx(size / (size + beside))
        with pytest.raises(BadTemplate, match="gives 0 prompts"):
            finish(
                search_template(
                    tiny,
                    dictionaries[:1],
                    parse_template(doable),
                    SearchPlan(n=2, k=1, controls=("capital-of",)),
                )
            )
        alone = SearchPlan(n=2, k=1, controls=())
        result = finish(search_template(tiny, dictionaries[:1], parse_template(doable), alone))
        assert not result["can_do"] or result["features"][0]["specificity"] is None

    def test_lens_and_curves(self, dictionaries, found):
        lensed = {one["sae"]: one["promoted"] for one in found["features"]}
        for name, promoted in lensed.items():
            assert (promoted is None) == (name == dictionaries[2].name)
        for curve in found["faithfulness"]:
            own = [one for one in found["features"] if one["sae"] == curve["sae"]]
            assert curve["points"][-1]["n"] == len(own)
            assert curve["metric_all"] == pytest.approx(found["accuracy"]["metric_mean"], abs=1e-5)

    def test_patching(self, tiny, dictionaries, doable):
        plan = SearchPlan(n=4, k=3, method="attribution_patching", controls=())
        found = finish(search_template(tiny, dictionaries[:1], parse_template(doable), plan))
        assert found["accuracy"]["metric_corrupt_mean"] is not None
        cases = [prompt.case for prompt in render(parse_template(doable), tiny, n=4).prompts]
        keys = [FeatureKey(0, one["index"]) for one in found["features"]]
        effects = finish(exact_effects(tiny, cases, dictionaries[:1], keys, replacement="corrupt"))
        assert [one["effect"] for one in found["features"]] == pytest.approx(
            [sum(row) / 4 for row in effects], abs=1e-4
        )
        bare = {key: value for key, value in doable.items() if key != "corrupt"}
        with pytest.raises(BadTemplate, match=r"template\.corrupt: patching needs"):
            next(search_template(tiny, dictionaries, parse_template(bare), plan))

    def test_what_the_model_cannot_do_is_said_and_not_ranked(self, tiny, dictionaries, doable):
        found = finish(search_template(tiny, dictionaries, parse_template(turned(doable)), PLAN))
        assert not found["can_do"]
        assert "it cannot do this task" in found["verdict"]
        assert found["features"] == found["faithfulness"] == found["controls"] == []
        assert found["agreement"] is None
        json.dumps(found, allow_nan=False)

    def test_attributions_are_the_mean_of_each_prompts(self, tiny, dictionaries, doable, found):
        totals: dict[FeatureKey, float] = {}
        for prompt in render(parse_template(doable), tiny, n=6, seed=0).prompts:
            plan = AttributionPlan(k=10**6, exact=0)
            for one in finish(attribute(tiny, prompt.case, dictionaries, plan)).results:
                totals[one.key] = totals.get(one.key, 0.0) + one.attribution
        names = [dictionary.name for dictionary in dictionaries]
        for one in found["features"]:
            key = FeatureKey(names.index(one["sae"]), one["index"])
            assert one["attribution"] == pytest.approx(totals[key] / 6, abs=1e-4)

    def test_no_step_goes_through_all_prompts(self, tiny, dictionaries, doable):
        steps = search_template(tiny, dictionaries, parse_template(doable), PLAN, Pace(block_tokens=10**9))
        phases = Counter(progress.phase for progress in steps)
        for phase in ("shortlist", "estimates", "ablations", "faithfulness", "report"):
            assert phases[phase] >= PLAN.n, phase

    def test_prompts_that_are_written_are_not_written_again(self, tiny, dictionaries, doable, found):
        rendered = render(parse_template(doable), tiny, n=PLAN.n, seed=PLAN.seed)
        plan = SearchPlan(n=PLAN.n, k=PLAN.k, controls=())
        steps = search_template(tiny, dictionaries, parse_template(doable), plan, rendered=rendered)
        assert next(steps).phase == "clean run"
        assert finish(steps)["prompts"] == found["prompts"]

    def test_it_pauses_and_stops_when_told(self, tiny, dictionaries, doable):
        tokens = (1, 40, 50)
        clean = hooked_logits(tiny, tokens, [])
        steps = search_template(tiny, dictionaries, parse_template(doable), PLAN, Pace(block_tokens=64))
        phases = []
        for _ in range(80):
            phases.append(next(steps).phase)
            assert torch.equal(hooked_logits(tiny, tokens, []), clean)
        steps.close()
        assert {"prompts", "clean run", "gradients", "ablations"} <= set(phases)

    @pytest.mark.parametrize(
        ("plan", "error", "match"),
        [
            (SearchPlan(k=0), OutOfRange, "k: at least 1"),
            (SearchPlan(n=1), OutOfRange, "n: 1 is outside"),
            (SearchPlan(controls=("nothing",)), BadTemplate, "controls.0: 'nothing' is not bundled"),
        ],
    )
    def test_refusals(self, tiny, dictionaries, plan, error, match):
        with pytest.raises(error, match=match):
            next(search_template(tiny, dictionaries, parse_template(TINY), plan))
        with pytest.raises((OutOfRange, MissingInput), match="saes: at least one"):
            next(search_template(tiny, [], parse_template(TINY), SearchPlan()))


def test_wilson_is_scipys():
    from scipy.stats import binomtest

    for correct, n in ((0, 5), (3, 7), (32, 32), (100, 256)):
        theirs = binomtest(correct, n).proportion_ci(0.95, method="wilson")
        assert wilson(correct, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.real_model
@pytest.mark.filterwarnings("ignore")
class TestSmolLM2:
    @pytest.fixture(scope="class")
    def demo(self) -> Dictionary:
        return Dictionary(
            "15-res-3k", load_sae(REPO / "examples" / "saes" / "15-res-3k"), Hook("resid_post", 15)
        )

    def test_every_bundled_template_can_be_written(self, smollm2: LanguageModel):
        for name in bundled_ids():
            rendered = render(bundled(name), smollm2, n=6)
            assert len(rendered.prompts) == 6, name
            for prompt in rendered.prompts:
                assert prompt.case.corrupt is not None
                assert len(prompt.case.corrupt) == len(prompt.case.tokens)
                assert prompt.case.metric.good
                assert prompt.case.metric.bad

    def test_gendered_pronoun_surfaces_her(self, smollm2: LanguageModel):
        """The feature that a researcher expects; its index is not asserted, which no retraining keeps."""
        sae = load_sae(REPO / "examples" / "saes" / "15-res-3k")
        demo = Dictionary("15-res-3k", sae, Hook("resid_post", 15))
        plan = SearchPlan(n=4, k=6, controls=("subject-verb-agreement",))
        found = finish(search_template(smollm2, [demo], bundled("gendered-pronoun"), plan))
        assert found["can_do"]
        assert found["agreement"] > 0.7, "the gradient should foretell the ablation"
        first = found["features"][0]
        tokens = [one["token"] for one in first["promoted"]]
        assert {" her", " she"} & set(tokens[:4]), tokens
        female, male = first["by_variant"]
        assert female > 1.0, "without it the model loses she"
        assert abs(male) < 0.3 * female
        assert first["specificity"] > 0.9
        assert first["by_role"]["name"] > 0.3 * first["attribution"]
