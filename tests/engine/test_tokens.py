"""Bytes per token id: joined, they are the text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from interpedia_engine.errors import ModelLoadFailed, OutOfRange
from interpedia_engine.models import LanguageModel
from interpedia_engine.tokens import Vocabulary, build_vocabulary, tokenizer_hash

TEXTS = [
    "the cat is in the house",
    "Grüße, naïve café — “quoted” …",
    "e\u0301 combining \u0928\u093f and \u1112\u1161\u11ab",
    "日本語と中文和한국어",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 family",
    "tabs\tand\r\nnew\n\n\nlines   and   runs",
    "\x00\x01\x7f control",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀 \U0010ffff",
    "<|im_start|>user\nhello<|im_end|>",
    "12345 3.14159 0xDEADBEEF",
]


def assert_round_trip(
    model: LanguageModel, text: str, *, special_as_text: bool = True, is_lossless: bool = True
) -> None:
    """The joined bytes are what the tokenizer decodes; and the text itself, where every byte has a token."""
    ids = model.tokenize(text, special_as_text=special_as_text)
    decoded = model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert model.vocabulary.text(ids) == decoded
    if is_lossless:
        assert decoded == text


class TestByteLevel:
    @pytest.mark.parametrize("text", TEXTS)
    @pytest.mark.parametrize("special_as_text", [True, False])
    def test_texts(self, tiny: LanguageModel, text: str, special_as_text: bool):
        assert_round_trip(tiny, text, special_as_text=special_as_text)

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(max_size=80))
    def test_any_text(self, tiny: LanguageModel, text: str):
        assert_round_trip(tiny, text)

    def test_special_tokens_in_a_text_may_be_spelled_out(self, tiny: LanguageModel):
        assert tiny.tokenize("<|im_start|>") == [1]
        assert 1 not in tiny.tokenize("<|im_start|>", special_as_text=True)
        assert tiny.tokenize("<|im_start|>") == [1], "the one call leaves no trace in the other"

    def test_every_byte_has_a_token(self, tiny: LanguageModel):
        assert {entry for entry in tiny.vocabulary.entries if len(entry) == 1} == {
            bytes([b]) for b in range(256)
        }

    def test_tokens_that_split_a_character(self, tiny: LanguageModel):
        ids = tiny.tokenize("é")
        assert len(ids) == 2
        assert [tiny.vocabulary[i] for i in ids] == [b"\xc3", b"\xa9"]
        assert tiny.vocabulary.text(ids[:1]) == "\ufffd"

    def test_ids_outside(self, tiny: LanguageModel):
        for bad in (-1, 526):
            with pytest.raises(OutOfRange, match=r"id -?\d+ is outside 0\.\.525"):
                tiny.vocabulary[bad]


def sentencepiece_like() -> Tokenizer:
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in ["\u2581", "t", "h", "e", "c", "a", "\u2581t", "\u2581th", "\u2581the", "日", "é"]:
        vocab[piece] = len(vocab)
    merges = [("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e")]
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<s>", "</s>")])
    backend.add_tokens([AddedToken("<tool>", normalized=False)])
    return backend


class TestSentencepiece:
    @pytest.mark.parametrize("text", [*TEXTS, "<tool> the <s>"])
    def test_texts(self, text: str):
        backend = sentencepiece_like()
        vocabulary = build_vocabulary(backend.to_str())
        ids = backend.encode(text, add_special_tokens=False).ids
        assert vocabulary.text(ids) == backend.decode(ids, skip_special_tokens=False) == text

    def test_bytes_and_spaces(self):
        vocabulary = build_vocabulary(sentencepiece_like().to_str(), d_vocab=300)
        assert vocabulary[3 + 0xE2] == b"\xe2"
        assert b" the" in vocabulary.entries
        assert len(vocabulary) == 300
        assert vocabulary[299] == b"", "a padding row of the embedding"

    def test_unigram(self):
        backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581the", -1.0), ("\u2581", -2.0)], unk_id=0))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        assert build_vocabulary(backend.to_str()).entries == (b"<unk>", b" the", b" ")


def test_other_families_are_refused():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "##ing": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelLoadFailed, match="tokenizer: it is neither byte-level nor"):
        build_vocabulary(backend.to_str())


def test_hash_depends_on_what_decides_the_ids(tiny: LanguageModel):
    text = tiny.tokenizer.backend_tokenizer.to_str()
    spec = json.loads(text)
    assert tokenizer_hash(
        json.dumps(spec | {"truncation": {"max_length": 4}, "padding": None})
    ) == tokenizer_hash(text)
    spec["model"]["merges"].pop()
    assert tokenizer_hash(json.dumps(spec)) != tokenizer_hash(text)
    assert tiny.provenance["tokenizer_hash"] == tokenizer_hash(text)


def test_vocabulary_of_nothing():
    assert Vocabulary(()).text([]) == ""
