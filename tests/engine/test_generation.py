"""The decoder on the tiny model: parity with transformers, rows that join and leave, refusals, failures."""

import itertools
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpedia_engine.errors import NoRoom, OutOfRange, WidthMismatch
from interpedia_engine.generation import Decoder, GenerationRequest, Sampling
from interpedia_engine.hooks import Hook
from interpedia_engine.interventions import DirectionChange, FeatureChange
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import load_sae, tiny_sae
from tests.engine.generating import GREEDY, alone, hugging_face, prompt_of, run, tokens_of

TEXTS = (
    "the cat",
    "the river in the city was blue and green",
    "music",
    "people have had the time of the year when all there were the light and the water",
)


def decoder(model: LanguageModel, **options: int) -> Decoder:
    return Decoder(model, **({"max_rows": 8, "max_total_tokens": 1024} | options))


def requests(model: LanguageModel, n_new: int = 12, **fields) -> list[GenerationRequest]:
    fields = {"sampling": GREEDY} | fields
    return [GenerationRequest(prompt_of(model, text), n_new, **fields) for text in TEXTS]


def push(layer: int = 1, strength: float = 4.0, method: str = "add", **fields) -> DirectionChange:
    vector = torch.randn(64, generator=torch.Generator().manual_seed(layer))
    return DirectionChange(vector, Hook("resid_post", layer), method, strength, **fields)


class TestRefusals:
    @pytest.mark.parametrize("name", ["max_rows", "max_total_tokens", "prefill_tokens"])
    def test_limits_below_one(self, tiny: LanguageModel, name: str):
        with pytest.raises(OutOfRange, match=f"{name}: at least 1"):
            decoder(tiny, **{name: 0})

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"prompt": ()}, "prompt: has no tokens"),
            ({"prompt": (1, 526)}, r"token id 526 is outside 0\.\.525"),
            ({"prompt": (-1,)}, "token id -1"),
            ({"max_new_tokens": 0}, "at least 1 is needed, not 0"),
            ({"max_new_tokens": 511}, "2 prompt tokens and 511 new ones are more than the 512"),
        ],
    )
    def test_requests_that_can_never_run(self, tiny: LanguageModel, fields, message):
        request = GenerationRequest(**({"prompt": (1, 5), "max_new_tokens": 4} | fields))
        with pytest.raises(OutOfRange, match=message):
            decoder(tiny).admit([request])

    def test_a_bad_change_is_refused_before_anything_runs(self, tiny: LanguageModel):
        bad = DirectionChange(torch.ones(63), Hook("resid_post", 1), "add")
        good, wrong = GenerationRequest((1, 5), 4), GenerationRequest((1, 5), 4, changes=(bad,))
        machine = decoder(tiny)
        with pytest.raises(WidthMismatch, match="vector"):
            machine.admit([good, wrong])
        assert machine.n_rows == 0

    def test_what_does_not_fit_now_may_fit_later(self, tiny: LanguageModel):
        machine = decoder(tiny, max_rows=2)
        one = GenerationRequest((1, 5), 2, sampling=GREEDY)
        machine.admit([one, one])
        assert not machine.fits([one])
        with pytest.raises(NoRoom, match="exceed 2 rows"):
            machine.admit([one])
        while machine.n_rows:
            machine.step()
        assert machine.fits([one, one])

    def test_memory_is_rows_times_the_longest(self, tiny: LanguageModel):
        machine = decoder(tiny, max_total_tokens=100)
        machine.admit([GenerationRequest((1, 5), 48)])
        assert machine.fits([GenerationRequest((1,), 2)])
        assert not machine.fits([GenerationRequest((1,), 2)] * 2)
        assert not machine.fits([GenerationRequest((1, 5), 49)])
        assert (
            machine.cache_bytes == 100 * 2 * 4 * 2 * 16 * 4
        )  # tokens · kv · layers · heads · d_head · bytes

    @pytest.mark.parametrize(
        "fields",
        [
            *({"temperature": value} for value in (-0.1, float("nan"), float("inf"))),
            *({"top_p": value} for value in (0.0, 1.5)),
            *({"min_p": value} for value in (-0.1, 1.5)),
            *({"repetition_penalty": value} for value in (0.0, float("nan"))),
            *({"top_k": -1}, {"seed": -1}, {"n_logprobs": -1}, {"frequency_penalty": float("inf")}),
        ],
    )
    def test_sampling_out_of_range(self, fields):
        with pytest.raises(OutOfRange, match=next(iter(fields))):
            Sampling(**fields)


class TestParity:
    @pytest.mark.parametrize("chunk", [256, 16, 3, 1])
    def test_greedy_equals_transformers(self, tiny: LanguageModel, chunk: int):
        """Rows of mixed lengths together, prompts whole or in pieces."""
        asked = requests(tiny)
        for request, events in zip(asked, run(decoder(tiny, prefill_tokens=chunk), asked), strict=True):
            assert tokens_of(events) == hugging_face(tiny, request.prompt, 12)
            assert [event.finish for event in events] == [None] * 11 + ["length"]

    def test_logprobs_equal_a_whole_forward_pass(self, tiny: LanguageModel):
        asked = requests(tiny, sampling=Sampling(temperature=0.0, n_logprobs=3))
        for request, events in zip(asked, run(decoder(tiny), asked), strict=True):
            tokens = [*request.prompt, *tokens_of(events)]
            with torch.no_grad():
                expected = tiny.hf(torch.tensor([tokens])).logits[0].log_softmax(-1)
            for offset, event in enumerate(events):
                row = expected[len(request.prompt) - 1 + offset]
                assert event.logprob == pytest.approx(float(row[event.token_id]), abs=1e-4)
                best = row.topk(3)
                assert [token for token, _ in event.top] == best.indices.tolist()
                assert [value for _, value in event.top] == pytest.approx(best.values.tolist(), abs=1e-4)

    def test_end_tokens(self, tiny: LanguageModel):
        request = requests(tiny)[0]
        expected = hugging_face(tiny, request.prompt, 12)
        ended = GenerationRequest(request.prompt, 12, sampling=GREEDY, eos_ids=(525, expected[4]))
        events = alone(tiny, ended)
        assert tokens_of(events) == expected[:5]
        assert events[-1].finish == "end_token"

    def test_bfloat16(self, tiny: LanguageModel):
        from interpedia_engine.models import ModelSource, load_model

        low = load_model(ModelSource("tiny"), cache_dir="unused", dtype="bfloat16")
        asked = [*requests(low), *requests(low, changes=(push(),))]
        events = run(decoder(low), asked)
        assert all(len(one) == 12 and one[-1].finish == "length" for one in events)
        assert tokens_of(events[1]) != tokens_of(events[5])


class TestJoiningAndLeaving:
    ALONE: ClassVar[dict] = {}
    CHANGES = ((), (push(),), (push(2, 1.5, "clamp"),))

    @settings(max_examples=8, deadline=None)
    @given(st.data())
    def test_whoever_comes_and_goes_every_row_is_as_if_alone(self, tiny: LanguageModel, data: st.DataObject):
        machine = decoder(tiny, max_rows=5, max_total_tokens=5 * 40, prefill_tokens=12)
        expected, got = {}, {}
        for _ in range(data.draw(st.integers(2, 12), label="turns")):
            length, n_new = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 15))
            prompt = (1, *range(10, 9 + length))
            changes = data.draw(st.sampled_from(self.CHANGES))
            request = GenerationRequest(prompt, n_new, changes, GREEDY)
            if machine.fits([request]):
                (row,) = machine.admit([request])
                expected[row], got[row] = request, []
            for _ in range(data.draw(st.integers(0, 6), label="steps")):
                for event in machine.step():
                    got[event.row].append(event.token_id)
            if expected and data.draw(st.booleans(), label="drop"):
                gone = data.draw(st.sampled_from(sorted(expected)))
                machine.drop([gone])
                expected.pop(gone)
        while machine.n_rows:
            for event in machine.step():
                got[event.row].append(event.token_id)
        for row, request in expected.items():
            key = request.prompt, request.max_new_tokens, request.changes
            if key not in self.ALONE:
                self.ALONE[key] = tokens_of(alone(tiny, request))
            assert got[row] == self.ALONE[key]

    def test_a_long_prompt_does_not_hold_up_the_others(self, tiny: LanguageModel):
        machine = decoder(tiny, prefill_tokens=8)
        (running,) = machine.admit([requests(tiny, 40)[0]])
        machine.step()
        (long,) = machine.admit([GenerationRequest((1, *range(10, 89)), 4, sampling=GREEDY)])
        (short,) = machine.admit([GenerationRequest((1, 5), 4, sampling=GREEDY)])
        seen: list[set[int]] = [{event.row for event in machine.step()} for _ in range(30)]
        # between two of its tokens there is one piece of the long prompt, or the short one
        assert all(running in a | b for a, b in itertools.pairwise(seen))
        first = {
            row: next(number for number, rows in enumerate(seen) if row in rows) for row in (short, long)
        }
        assert first[short] <= 3
        assert first[long] > 16

    def test_who_joins_has_a_token_before_the_others_go_on(self, tiny: LanguageModel):
        machine = decoder(tiny, prefill_tokens=8)
        (running,) = machine.admit([requests(tiny, 40)[0]])
        machine.step()
        machine.step()
        joining = machine.admit([GenerationRequest((1, 5, 6), 9, sampling=GREEDY)] * 3)
        seen = [[event.row for event in machine.step()] for _ in range(4)]
        # two prompts of three tokens go into eight, a third one would be too much
        assert seen == [joining[:2], [running, *joining[:2]], [joining[2]], [running, *joining]]

    def test_dropped_rows_are_gone_at_once_wherever_they_are(self, tiny: LanguageModel):
        machine = decoder(tiny, prefill_tokens=8)
        (running,) = machine.admit([requests(tiny)[0]])
        machine.step()
        (partial,) = machine.admit([GenerationRequest((1, *range(10, 60)), 4)])
        machine.step()
        (waiting,) = machine.admit([GenerationRequest((1, *range(10, 60)), 4)])
        machine.drop([running, partial, waiting, 999])
        assert machine.n_rows == 0
        assert machine.step() == []

    def test_memory_is_taken_once(self, tiny: LanguageModel):
        machine = decoder(tiny, max_total_tokens=512)
        run(machine, requests(tiny))
        before = {layer: pair[0].data_ptr() for layer, pair in machine._cache._memory.items()}
        for n_new in (100, 3, 40):
            run(machine, requests(tiny, n_new)[:3])
        after = {layer: pair[0].data_ptr() for layer, pair in machine._cache._memory.items()}
        assert before == after


class TestFailures:
    @pytest.mark.parametrize("kind", ["resid_post", "attn_z", "mlp_post"])
    def test_an_extreme_intervention_ends_its_own_row_only(self, tiny: LanguageModel, kind):
        width = 160 if kind == "mlp_post" else 64
        wild = DirectionChange(torch.ones(width), Hook(kind, 1), "add", 3e38, positions="generated")
        wilder = DirectionChange(torch.ones(width), Hook(kind, 0), "add", 3e38)
        good = requests(tiny, 20)
        asked = [
            good[0],
            GenerationRequest(good[1].prompt, 20, (wild,), GREEDY),
            GenerationRequest(good[2].prompt, 20, (wilder, wilder), Sampling(temperature=1.0)),
            good[3],
        ]
        machine = decoder(tiny)
        events = run(machine, asked)
        assert events[1][-1].finish in ("error", "length")  # a norm may swallow what is merely huge
        assert events[2][-1].finish == "error"
        assert events[2][-1].token_id is None
        assert events[2][-1].error.field == "interventions"
        assert "not finite" in events[2][-1].error.detail
        for number in (0, 3):
            assert tokens_of(events[number]) == tokens_of(alone(tiny, good[number]))
        # Their slots are clean for whoever comes next.
        for request, later in zip(good, run(machine, good), strict=True):
            assert tokens_of(later) == tokens_of(alone(tiny, request))

    @pytest.mark.parametrize("case", ["padding", "moved prompt", "larger rectangle", "moved row"])
    def test_numbers_that_are_not_finite_leave_with_their_row(self, tiny: LanguageModel, case: str):
        """Wherever a row that failed has been: a masked NaN would end the row that comes there."""
        poison = DirectionChange(torch.ones(64), Hook("resid_post", 0), "add", 3e38)
        when = "generated" if case == "moved row" else "all"
        ill = (replace(poison, positions=when),) * 2
        short, long = (1, 40, 41, 42), (1, *range(10, 60))
        machine = decoder(tiny, prefill_tokens=16 if case in ("moved prompt", "larger rectangle") else 256)
        if case == "padding":
            machine.admit([GenerationRequest(long, 4), GenerationRequest(short, 4, ill)])
        elif case == "moved row":
            machine.admit([GenerationRequest(short, 2), GenerationRequest(short, 4, ill)])
        else:
            machine.admit([GenerationRequest(long, 4, ill)])
        failed = [event.finish for event in machine.step()]
        if case == "moved prompt":
            machine.admit([GenerationRequest(short, 4)] * 2)
        elif case == "larger rectangle":
            machine.admit([GenerationRequest(long[:40], 100)])
        while "error" not in failed:
            failed += [event.finish for event in machine.step()]
        assert all(flat.isfinite().all() for pair in machine._cache._memory.values() for flat in pair)

    @pytest.mark.parametrize("method", ["add", "clamp", "scale"])
    @pytest.mark.parametrize("of_feature", [True, False])
    def test_a_change_that_numbers_cannot_hold_is_refused(
        self, tiny: LanguageModel, method, of_feature, tmp_path
    ):
        hook = Hook("resid_post", 1)
        if of_feature:
            sae = load_sae(tiny_sae(tmp_path, shape=tiny.shape, hook=hook))
            change = FeatureChange(sae, hook, hook, 3, method, 1e40)
        else:
            change = DirectionChange(torch.ones(64), hook, method, 1e40)
        with pytest.raises(OutOfRange, match=r"strength: 1e\+40 makes numbers of .*, the limit is 3.4e\+38"):
            decoder(tiny).check(GenerationRequest((1, 2), 4, (change,)))
        decoder(tiny).check(GenerationRequest((1, 2), 4, (replace(change, strength=1e30),)))

    def test_nothing_is_left_on_the_model(self, tiny: LanguageModel):
        run(decoder(tiny), requests(tiny, changes=(push(),)))
        for module in tiny.hf.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


class TestSteering:
    def test_a_strength_of_zero_is_the_default_token_for_token(self, tiny: LanguageModel):
        nothing = (push(strength=0.0), push(2, 1.0, "scale"), push(2, 0.0, "orthogonal"))
        for seed, temperature in ((1, 0.0), (2, 1.0)):
            sampling = Sampling(temperature=temperature, seed=seed)
            prompt = prompt_of(tiny, TEXTS[1])
            default, steered = run(
                decoder(tiny),
                [
                    GenerationRequest(prompt, 30, sampling=sampling),
                    GenerationRequest(prompt, 30, nothing, sampling),
                ],
            )
            assert tokens_of(default) == tokens_of(steered)

    @pytest.mark.parametrize("positions", ["all", "prompt", "generated", frozenset({0, 3, 12})])
    def test_equals_transformers_with_a_hook_written_by_hand(self, tiny: LanguageModel, positions):
        change = push(1, 6.0, positions=positions)
        asked = requests(tiny, changes=(change,)) + requests(tiny)
        events = run(decoder(tiny), asked)
        differs: list[bool] = []
        for number, request in enumerate(asked[:4]):
            prompt = request.prompt

            def changed(position: int, prompt=prompt) -> bool:
                if isinstance(positions, frozenset):
                    return position in positions
                is_prompt = position < len(prompt)
                return position > 0 and (positions == "all" or is_prompt == (positions == "prompt"))

            seen = 0

            def hook(_module, _args, output, changed=changed):
                nonlocal seen
                mask = torch.tensor([changed(seen + column) for column in range(output.shape[1])])
                seen += output.shape[1]
                return output + mask[None, :, None] * change.strength * change.vector

            handle = tiny.hf.base_model.layers[1].register_forward_hook(hook)
            try:
                expected = hugging_face(tiny, prompt, 12)
            finally:
                handle.remove()
            assert tokens_of(events[number]) == expected
            assert tokens_of(events[number + 4]) == hugging_face(tiny, prompt, 12)
            differs.append(tokens_of(events[number]) != tokens_of(events[number + 4]))
        assert sum(differs) >= 3  # or the test would prove nothing

    def test_special_tokens_of_a_chat_are_left_alone(self, tiny: LanguageModel):
        prompt = prompt_of(tiny, TEXTS[1])
        everything = frozenset(range(len(prompt)))
        default = alone(tiny, GenerationRequest(prompt, 8, sampling=GREEDY))
        change = push(1, 6.0, positions="prompt")
        spared = alone(tiny, GenerationRequest(prompt, 8, (change,), GREEDY, protected=everything))
        assert tokens_of(spared) == tokens_of(default)
        assert tokens_of(alone(tiny, GenerationRequest(prompt, 8, (change,), GREEDY))) != tokens_of(default)
