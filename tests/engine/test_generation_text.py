"""Text that streams: whole characters, stop strings across tokens; chats in the model's template."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interpedia_engine.errors import OutOfRange, UnsupportedChat
from interpedia_engine.generation import StreamedText, chat_tokens
from interpedia_engine.generation.chat import special_ids
from interpedia_engine.models import LanguageModel
from interpedia_engine.tokens import Vocabulary


def stream(chunks: list[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], StreamedText]:
    text = StreamedText(Vocabulary(tuple(chunks)), stops=stops)
    pieces = [text.push(token) for token in range(len(chunks))]
    return [*pieces, text.finish()], text


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def until_the_first_complete_stop(text: str, stops: tuple[str, ...]) -> str:
    """The same by reading one character at a time."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="abc é😀語", max_size=30),
    places=st.lists(st.integers(0, 200), max_size=20),
    stops=st.lists(st.text(alphabet="abcé😀", min_size=1, max_size=4), max_size=3).map(tuple),
)
@example(text="aab", places=[1, 2], stops=("ab",))
@example(text="abc", places=[1, 2], stops=("abc", "b"))
def test_pieces_are_the_same_however_the_text_is_cut(text, places, stops):
    pieces, streamed = stream(cut(text.encode(), places), stops)
    expected = until_the_first_complete_stop(text, stops)
    assert "".join(pieces) == expected
    assert streamed.is_stopped == (expected != text or any(text.endswith(stop) for stop in stops if stop))
    assert "\ufffd" not in "".join(pieces)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=30), places=st.lists(st.integers(0, 200), max_size=20))
def test_bytes_that_are_no_text_become_the_replacement_character(data: bytes, places: list[int]):
    assert "".join(stream(cut(data, places))[0]) == data.decode("utf-8", errors="replace")


def test_a_character_comes_whole_and_at_once():
    pieces, _ = stream([b"\xf0\x9f", b"\x98", b"\x80 a", b"\xc3"])
    assert pieces == ["", "", "😀 a", "", "\ufffd"]


def test_what_may_become_a_stop_is_held_back_and_given_when_it_does_not():
    pieces, text = stream([b"one<", b"|e", b"nd", b" two"], ("<|end|>",))
    assert pieces == ["one", "", "", "<|end two", ""]
    assert not text.is_stopped
    pieces, text = stream([b"one<", b"|end", b"|> two", b"three"], ("<|end|>",))
    assert pieces == ["one", "", "", "", ""]
    assert text.is_stopped


def test_hidden_tokens_and_refusals():
    vocabulary = Vocabulary((b"a", b"<end>"))
    text = StreamedText(vocabulary, hidden_ids={1})
    assert [text.push(token) for token in (0, 1, 0)] == ["a", "", "a"]
    with pytest.raises(OutOfRange, match="empty string"):
        StreamedText(vocabulary, stops=("a", ""))
    with pytest.raises(OutOfRange, match="id 2 is outside"):
        text.push(2)


class TestChat:
    MESSAGES = ({"role": "user", "content": "the cat"}, {"role": "assistant", "content": "is red"})

    @pytest.mark.parametrize("add_generation_prompt", [True, False])
    def test_ids_equal_the_tokenizers_own(self, tiny: LanguageModel, add_generation_prompt: bool):
        ours = chat_tokens(tiny, self.MESSAGES, add_generation_prompt=add_generation_prompt)
        theirs = tiny.tokenizer.apply_chat_template(
            list(self.MESSAGES), tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=False
        )
        assert list(ours.ids) == theirs
        spelled = [tiny.vocabulary[token].decode() for token in ours.ids]
        assert ours.special == tuple(text.startswith("<|") for text in spelled)
        assert 0 in ours.special_positions
        assert len(ours.special_positions) == 4 + add_generation_prompt

    def test_special_ids(self, tiny: LanguageModel):
        assert special_ids(tiny) == {0, 1, 2}

    def test_a_model_without_a_template(self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
        with pytest.raises(UnsupportedChat, match="messages: the model's tokenizer has no chat template"):
            chat_tokens(tiny, self.MESSAGES)

    def test_a_template_that_refuses(self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tiny.tokenizer, "chat_template", "{{ raise_exception('no system role') }}")
        with pytest.raises(UnsupportedChat, match="refuses them: no system role"):
            chat_tokens(tiny, self.MESSAGES)
