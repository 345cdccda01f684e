"""Files that must not become an SAE: each is refused with the field and the fact."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from interpedia_engine.errors import (
    BadSAEConfig,
    BadWeights,
    EngineError,
    OutOfRange,
    UnknownHook,
    UnsupportedArchitecture,
    WidthMismatch,
)
from interpedia_engine.hooks import Hook, ModelShape
from interpedia_engine.saes import check_sae, load_sae, loading, parse_config, read_header, tiny_sae

SHAPE = ModelShape(4, 64, 160, 4, 16, 526, "llama")
HOOK = Hook("resid_post", 2)
WEIGHTS = "sae_weights.safetensors"


def test_what_only_the_library_finds_wrong_is_refused_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise SafetensorError("invalid")

    monkeypatch.setattr(loading, "load_file", refuse)
    with pytest.raises(BadWeights, match="weights: cannot be read as safetensors"):
        load_sae(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_sae(tmp_path / "sae", shape=SHAPE, hook=HOOK)


def edit_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= fields.pop("metadata", {})
    config |= fields
    (folder / "cfg.json").write_text(
        json.dumps({name: value for name, value in config.items() if value != "DROP"})
    )


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def write_raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def refused(folder: Path, error: type[EngineError], match: str) -> None:
    with pytest.raises(error, match=match):
        check_sae(folder, SHAPE)


def test_the_untouched_one_is_accepted(folder: Path):
    info = check_sae(folder, SHAPE)
    assert (info.hook, info.hook_out, info.stored_dtypes) == (HOOK, HOOK, ("F32",))
    assert info.decoder_norms is not None
    assert info.decoder_norms == tuple(sorted(info.decoder_norms))
    assert info.n_weight_bytes == (folder / WEIGHTS).stat().st_size
    norms = load_file(folder / WEIGHTS)["W_dec"].norm(dim=1)
    np.testing.assert_allclose(info.decoder_norms[0], norms.min().item(), rtol=1e-6)
    np.testing.assert_allclose(info.decoder_norms[2], norms.max().item(), rtol=1e-6)


def test_files_may_come_by_name_from_a_store_of_blobs(folder: Path, tmp_path: Path):
    blobs = {name: tmp_path / f"blob{i}" for i, name in enumerate(["cfg.json", WEIGHTS])}
    for name, blob in blobs.items():
        blob.write_bytes((folder / name).read_bytes())
    assert check_sae(blobs, SHAPE).weights_sha256 == check_sae(folder, SHAPE).weights_sha256
    x = torch.randn(3, 64)
    assert torch.equal(load_sae(blobs).encode(x), load_sae(folder).encode(x))


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "error", "match"),
        [
            ({"architecture": "DROP"}, BadSAEConfig, "architecture: is missing"),
            ({"architecture": ["topk"]}, BadSAEConfig, "architecture: must be a string, not list"),
            (
                {"architecture": "superduper"},
                UnsupportedArchitecture,
                "'superduper' is not one of standard, gated",
            ),
            (
                {"architecture": "temporal"},
                UnsupportedArchitecture,
                "temporal is refused: its code depends on the whole",
            ),
            ({"architecture": "matching_pursuit"}, UnsupportedArchitecture, "refused: it searches greedily"),
            ({"architecture": "batchtopk"}, UnsupportedArchitecture, "training class"),
            ({"architecture": "crosscoder"}, UnsupportedArchitecture, "over several sites"),
            ({"d_in": "DROP"}, BadSAEConfig, "d_in: is missing"),
            ({"d_in": True}, BadSAEConfig, "d_in: must be an integer, not True"),
            ({"d_in": 64.0}, BadSAEConfig, "d_in: must be an integer, not 64.0"),
            ({"d_in": 0}, BadSAEConfig, r"d_in: 0 is outside 1\.\."),
            ({"d_in": 10**400}, BadSAEConfig, "d_in: an integer of 1329 bits is outside"),
            (
                {"d_in": 65},
                WidthMismatch,
                r"d_in: 65 differs from 64, the width at blocks\.2\.hook_resid_post",
            ),
            ({"d_sae": 97}, WidthMismatch, r"W_dec: has shape \[96, 64\], but d_in=64, d_sae=97"),
            ({"d_sae": 1 << 40}, BadSAEConfig, "d_sae: 1099511627776 is outside"),
            ({"k": "DROP"}, BadSAEConfig, "k: is missing"),
            ({"k": 97}, BadSAEConfig, r"k: 97 is outside 1\.\.96"),
            ({"k": -1}, BadSAEConfig, r"k: -1 is outside 1\.\.96"),
            ({"k": 0}, BadSAEConfig, r"k: 0 is outside 1\.\.96"),
            ({"k": "8"}, BadSAEConfig, "k: must be an integer, not '8'"),
            ({"dtype": "float64"}, BadSAEConfig, "dtype: 'float64' is not one of float32"),
            ({"dtype": 32}, BadSAEConfig, "dtype: 32 is not one of"),
            ({"apply_b_dec_to_input": 1}, BadSAEConfig, "apply_b_dec_to_input: must be true or false, not 1"),
            (
                {"rescale_acts_by_decoder_norm": "no"},
                BadSAEConfig,
                "rescale_acts_by_decoder_norm: must be true",
            ),
            (
                {"normalize_activations": "expected_average_only_in"},
                BadSAEConfig,
                "number that the file lacks",
            ),
            ({"normalize_activations": "covariance_whitening"}, BadSAEConfig, "needs its statistics"),
            (
                {"normalize_activations": "whatever"},
                BadSAEConfig,
                "normalize_activations: 'whatever' is not one of",
            ),
            ({"reshape_activations": "hook_q"}, BadSAEConfig, "reshape_activations: 'hook_q' is neither"),
            ({"architecture": "transcoder", "apply_b_dec_to_input": True}, BadSAEConfig, "d_out: is missing"),
            (
                {"architecture": "transcoder", "d_out": 64, "apply_b_dec_to_input": True},
                BadSAEConfig,
                "apply_b_dec_to_input: must be false for a transcoder",
            ),
        ],
    )
    def test_fields(self, folder: Path, fields: dict[str, Any], error: type[EngineError], match: str):
        edit_config(folder, **fields)
        refused(folder, error, match)

    @pytest.mark.parametrize(
        ("metadata", "error", "match"),
        [
            ({"hook_name": None}, BadSAEConfig, "metadata.hook_name: is missing"),
            ({"hook_name": "blocks.2.hook_nowhere"}, UnknownHook, "'blocks.2.hook_nowhere' is not a hook"),
            ({"hook_name": "blocks.4.hook_resid_post"}, OutOfRange, r"layer 4 .* outside 0\.\.3"),
            ({"hook_name": "blocks.2.mlp.hook_post"}, WidthMismatch, "d_in: 64 differs from 160"),
            ({"hook_name": 7}, BadSAEConfig, "metadata.hook_name: must be a string, not int"),
            ({"hook_name": "x" * 301}, BadSAEConfig, "has 301 characters, more than 300"),
            ({"hf_hook_name": "model.layers.1"}, BadSAEConfig, "another place"),
            ({"hook_head_index": 3}, BadSAEConfig, "hook_head_index: an SAE on a single attention head"),
            ({"sae_lens_version": "six"}, BadSAEConfig, "sae_lens_version: 'six' is not a version"),
            ({"context_size": -5}, BadSAEConfig, "context_size: -5 is outside"),
            (
                {"model_from_pretrained_kwargs": []},
                BadSAEConfig,
                "model_from_pretrained_kwargs: must be an object",
            ),
            ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, BadSAEConfig, "RMS norms"),
        ],
    )
    def test_metadata(self, folder: Path, metadata: dict[str, Any], error: type[EngineError], match: str):
        edit_config(folder, metadata=metadata)
        refused(folder, error, match)

    @pytest.mark.parametrize("scale", ["2", 0, -1.5, True, 10**400])
    def test_norm_scale(self, folder: Path, scale: Any):
        edit_config(
            folder, normalize_activations="expected_average_only_in", metadata={"norm_scaling_factor": scale}
        )
        refused(folder, BadSAEConfig, "metadata.norm_scaling_factor: .* is not a number within 0..1e")

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "is not JSON"),
            (b"d_in: 64", "is not JSON"),
            (b"[1, 2]", "must be an object, not list"),
            (b'{"d_in": 64, "d_in": 65}', "names a key twice"),
            (b'{"d_in": NaN}', "NaN is not JSON"),
            (b'{"d_in": "\xff"}', "is not JSON text in UTF-8"),
            (b"[" * 60_000, "is not JSON"),
            (b'{"d_in": ' + b"9" * 5000 + b"}", "is not JSON"),
            (b'{"metadata": "hello"}', "metadata: must be an object, not str"),
            (b" " * (64 * 1024 + 1), "has 65537 bytes, more than 65536"),
        ],
    )
    def test_text(self, folder: Path, content: bytes, match: str):
        (folder / "cfg.json").write_bytes(content)
        refused(folder, BadSAEConfig, match)

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({"activation_fn_str": "tanh-relu"}, "activation_fn: 'tanh-relu' is neither relu nor topk"),
            ({"activation_fn": "topk", "activation_fn_kwargs": {"k": 500}}, r"k: 500 is outside 1\.\.96"),
            ({"activation_fn": "topk"}, "k: is missing"),
            ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor: is no longer applied"),
            ({"normalize_activations": True}, "number that the file lacks"),
        ],
    )
    def test_flat_ones_from_before_version_6(self, fields: dict[str, Any], match: str):
        flat = {"d_in": 64, "d_sae": 96, "hook_point": HOOK.name, "normalize_activations": False}
        assert parse_config(json.dumps(flat).encode()).architecture == "standard"
        with pytest.raises(BadSAEConfig, match=match):
            parse_config(json.dumps(flat | fields).encode())

    def test_what_a_loader_could_act_upon_is_dropped(self, folder: Path):
        edit_config(
            folder,
            device="cuda:7",
            to_dict="x",
            metadata={
                "model_from_pretrained_kwargs": {"trust_remote_code": True},
                "trust_remote_code": True,
                "dataset_path": "https://somewhere.example/data",
                "to_dict": "shadow",
            },
        )
        cfg = check_sae(folder, SHAPE).cfg
        assert cfg.input_transform == "none"
        assert not any(
            "trust" in text or "somewhere" in text or "cuda" in text for text in map(str, vars(cfg).values())
        )

    @settings(max_examples=150, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(
                ["architecture", "d_in", "d_sae", "k", "dtype", "metadata", "normalize_activations", "x"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                lambda children: (
                    st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children)
                ),
                max_leaves=4,
            ),
        )
    )
    def test_any_object_is_read_or_refused(self, raw: dict[str, Any]):
        with pytest.raises(EngineError):
            parse_config(json.dumps(raw).encode())


class TestTranscoders:
    def test_where_it_writes_must_be_known_and_fit(self, tmp_path: Path):
        folder = tiny_sae(
            tmp_path, shape=SHAPE, hook=Hook("mlp_input", 1), overrides={"architecture": "transcoder"}
        )
        info = check_sae(folder, SHAPE)
        assert (info.hook, info.hook_out) == (Hook("mlp_input", 1), Hook("mlp_out", 1))
        edit_config(folder, metadata={"hook_name_out": None})
        refused(folder, BadSAEConfig, "hook_name_out: is missing")
        assert check_sae(folder, SHAPE, hook_out=Hook("mlp_out", 3)).hook_out == Hook("mlp_out", 3)
        edit_config(folder, metadata={"hook_name_out": "blocks.1.mlp.hook_post"})
        refused(folder, WidthMismatch, "d_out: 64 differs from 160")

    def test_two_places_to_write_are_refused(self, tmp_path: Path):
        folder = tiny_sae(
            tmp_path, shape=SHAPE, hook=Hook("mlp_input", 1), overrides={"architecture": "transcoder"}
        )
        same = check_sae(folder, SHAPE, hook_out=Hook("mlp_out", 1))
        assert same.hook_out == Hook("mlp_out", 1), "the control: said twice alike"
        with pytest.raises(
            BadSAEConfig,
            match=r"hook_out: is blocks\.3\.hook_mlp_out, but .*hook_name_out = blocks\.1\.hook_mlp_out",
        ):
            check_sae(folder, SHAPE, hook_out=Hook("mlp_out", 3))

    @pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "abstopk", "jumprelu", "identity"])
    def test_what_writes_where_it_reads_has_no_other_output(self, tmp_path: Path, architecture: str):
        folder = tiny_sae(tmp_path, shape=SHAPE, hook=HOOK, overrides={"architecture": architecture})
        assert check_sae(folder, SHAPE, hook_out=HOOK).hook_out == HOOK
        with pytest.raises(
            BadSAEConfig, match=r"hook_out: is blocks\.3\.hook_resid_post, .* no meaning here"
        ):
            check_sae(folder, SHAPE, hook_out=Hook("resid_post", 3))

    def test_the_callers_hook_wins(self, folder: Path):
        assert check_sae(folder, SHAPE, hook=Hook("resid_pre", 0)).hook == Hook("resid_pre", 0)
        with pytest.raises(WidthMismatch, match="d_in: 64 differs from 160"):
            check_sae(folder, SHAPE, hook=Hook("mlp_post", 0))


class TestWhichFiles:
    def test_no_configuration(self, folder: Path):
        (folder / "cfg.json").unlink()
        refused(folder, BadSAEConfig, r"cfg\.json: is missing")

    def test_no_weights(self, folder: Path):
        (folder / WEIGHTS).unlink()
        refused(folder, BadWeights, "no .safetensors file, and a topk SAE needs one")

    @pytest.mark.parametrize("name", ["sae.pt", "weights.bin", "x.pkl", "run.py", "params.npz"])
    def test_other_kinds_of_file(self, folder: Path, name: str):
        (folder / name).write_bytes(b"")
        refused(folder, BadWeights, f"{name}: is neither cfg.json nor a .safetensors file")

    def test_two_weights_files(self, folder: Path):
        (folder / "other.safetensors").write_bytes(b"")
        refused(folder, BadWeights, "and also 1 other")

    def test_the_sparsity_file_may_stay(self, folder: Path):
        (folder / "sparsity.safetensors").write_bytes(b"never read")
        assert check_sae(folder, SHAPE)


class TestHeader:
    def test_pickles_and_archives(self, folder: Path):
        torch.save({"W_enc": torch.zeros(2)}, folder / WEIGHTS)
        refused(folder, BadWeights, "weights: is a zip archive .* pickles are never read")
        for protocol in (2, 3, 4, 5):
            (folder / WEIGHTS).write_bytes(pickle.dumps({"a": [1, 2, 3]}, protocol=protocol))
            refused(folder, BadWeights, "weights: is a pickle")

    @pytest.mark.parametrize(
        ("header", "length", "match"),
        [
            (b"", None, "header: is not JSON"),
            (b"{}", 10**6, "header: claims 1000000 bytes, more than 262144"),
            (b"{}", 2**63, "header: claims 9223372036854775808 bytes, more than"),
            (b"{}", 100, "header: claims 100 bytes, but the file has 10"),
            (b"not json at all", None, "header: is not JSON"),
            (b"[1]", None, "header: must be an object, not list"),
            (b'{"a": 1, "a": 2}', None, "header: names a key twice"),
            (b"[" * 100_000, None, "header: is not JSON"),
            (b'{"a": 5}', None, "a: its header entry must have exactly dtype"),
            (b'{"a\\u0000": {}}', None, "header: a tensor's name is unprintable"),
        ],
    )
    def test_malformed(self, tmp_path: Path, header: bytes, length: int | None, match: str):
        write_raw(tmp_path / "w", header, length=length)
        with pytest.raises(BadWeights, match=match):
            read_header(tmp_path / "w")

    @pytest.mark.parametrize("size", [0, 1, 7])
    def test_short_files(self, tmp_path: Path, size: int):
        (tmp_path / "w").write_bytes(b"\x00" * size)
        with pytest.raises(BadWeights, match=f"weights: has {size} bytes"):
            read_header(tmp_path / "w")

    def test_a_header_of_400_000_empty_tensors(self, folder: Path):
        entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        write_raw(folder / WEIGHTS, ("{" + ",".join(entry % i for i in range(400_000)) + "}").encode())
        refused(folder, BadWeights, "header: claims .* bytes, more than 262144")
        write_raw(folder / WEIGHTS, ("{" + ",".join(entry % i for i in range(33)) + "}").encode())
        refused(folder, BadWeights, "header: has 33 tensors, more than 32")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"data_offsets": [0, 4]}, "shape .* needs .* bytes, the header gives 4"),
            ({"data_offsets": [4, 0]}, "are not a begin and an end"),
            ({"data_offsets": [0]}, "are not a begin and an end"),
            ({"data_offsets": [-4, 0]}, "data_offsets must be a list of non-negative integers"),
            ({"data_offsets": "0,4"}, "data_offsets must be a list"),
            ({"shape": [True]}, "shape must be a list of non-negative integers"),
            ({"shape": [2**61, 2**61]}, "needs .* bytes"),
            ({"shape": [1] * 9}, "shape has 9 numbers, more than 8"),
            ({"shape": [0, 64]}, r"shape \[0, 64\] has a dimension of 0"),
            ({"dtype": "F64"}, "has dtype F64, not one of F32, F16, BF16"),
            ({"dtype": "I64"}, "has dtype I64"),
            ({"dtype": ["F32"]}, "has dtype"),
            ({"extra": 1}, "must have exactly dtype, shape and data_offsets"),
        ],
    )
    def test_an_entry_that_lies(self, folder: Path, change: dict[str, Any], match: str):
        header, data = header_of(folder / WEIGHTS)
        header["b_dec"] |= change
        write_raw(folder / WEIGHTS, json.dumps(header).encode(), data)
        refused(folder, BadWeights, f"b_dec: .*{match}")

    def test_offsets_that_overlap_leave_gaps_or_miss_the_end(self, folder: Path):
        header, data = header_of(folder / WEIGHTS)
        order = sorted(
            (name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"][0]
        )
        text = json.dumps(header).encode()
        write_raw(folder / WEIGHTS, text, data + b"\x00" * 8)
        refused(folder, BadWeights, "header: describes .* bytes of tensors, but the file holds")
        write_raw(folder / WEIGHTS, text, data[:-1])
        refused(folder, BadWeights, "header: describes .* bytes of tensors, but the file holds")
        for step, what in ((-4, "overlaps"), (4, "leaves a gap")):
            moved = json.loads(text)
            moved[order[1]]["data_offsets"] = [offset + step for offset in header[order[1]]["data_offsets"]]
            write_raw(folder / WEIGHTS, json.dumps(moved).encode(), data)
            refused(folder, BadWeights, f"{order[1]}: starts at byte .*{what}")

    @settings(max_examples=100, deadline=None)
    @given(content=st.binary(max_size=300))
    def test_any_bytes_are_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, content: bytes):
        path = tmp_path_factory.mktemp("fuzz") / "w"
        path.write_bytes(content)
        with pytest.raises(BadWeights):
            read_header(path)


class TestTensors:
    @pytest.mark.parametrize("shape", [[1 << 61, 0], [0, 1 << 61], [0]])
    def test_a_tensor_without_values_is_not_walked_through(self, folder: Path, shape: list[int]):
        header, data = header_of(folder / WEIGHTS)
        header["scaling_factor"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data)] * 2}
        write_raw(folder / WEIGHTS, json.dumps(header).encode(), data)
        refused(folder, BadWeights, r"scaling_factor: shape \[.*\] has a dimension of 0")

    @pytest.mark.parametrize("size", [(), (1,), (64,), (97,), (96, 1), (1, 96)])
    def test_the_old_scaling_factor_in_another_shape(self, folder: Path, size: tuple[int, ...]):
        edit_weights(folder, lambda w: w.update(scaling_factor=torch.ones(size)))
        refused(folder, WidthMismatch, r"scaling_factor: has shape .* give \[96\]")

    def test_the_old_scaling_factor_of_ones_changes_nothing(self, folder: Path):
        x = torch.randn(3, 64)
        before = load_sae(folder).encode(x)
        edit_weights(folder, lambda w: w.update(scaling_factor=torch.ones(96)))
        assert check_sae(folder, SHAPE)
        assert torch.equal(load_sae(folder).encode(x), before)
        edit_weights(folder, lambda w: w["scaling_factor"].__setitem__(95, 1.5))
        refused(folder, BadWeights, "scaling_factor: is not all ones")

    def test_missing_foreign_and_misshapen(self, folder: Path, tmp_path: Path):
        edit_weights(folder, lambda w: w.pop("b_enc"))
        refused(folder, BadWeights, "b_enc: is missing; a topk SAE has W_enc, W_dec, b_dec, b_enc")
        edit_weights(folder, lambda w: w.update(b_enc=torch.zeros(96), threshold=torch.zeros(96)))
        refused(folder, BadWeights, "threshold: does not belong to a topk SAE")
        edit_weights(folder, lambda w: (w.pop("threshold"), w.update(W_enc=torch.zeros(96, 64))))
        refused(folder, WidthMismatch, r"W_enc: has shape \[96, 64\].* give \[64, 96\]")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_dec"])
    def test_values_that_are_no_numbers(self, folder: Path, dtype: torch.dtype, value: float, name: str):
        def spoil(weights: dict[str, torch.Tensor]) -> None:
            weights.update({key: tensor.to(dtype) for key, tensor in weights.items()})
            weights[name].view(-1)[-1] = value

        edit_weights(folder, lambda w: w.update({key: tensor.to(dtype) for key, tensor in w.items()}))
        assert check_sae(folder, SHAPE), "the control: the same file without it passes"
        edit_weights(folder, spoil)
        refused(folder, BadWeights, f"{name}: holds NaN or infinite values")

    def test_negative_thresholds(self, tmp_path: Path):
        folder = tiny_sae(tmp_path, shape=SHAPE, hook=HOOK, overrides={"architecture": "jumprelu"})
        edit_weights(folder, lambda w: w["threshold"].__setitem__(7, -0.5))
        refused(folder, BadWeights, "threshold: holds negative values, the lowest is -0.5")

    def test_a_scaling_factor_is_accepted_when_it_changes_nothing(self, folder: Path):
        edit_weights(folder, lambda w: w.update(scaling_factor=torch.ones(96)))
        assert check_sae(folder, SHAPE)
        assert "scaling_factor" not in load_sae(folder).weights
        edit_weights(folder, lambda w: w.update(scaling_factor=torch.full((96,), 2.0)))
        refused(folder, BadWeights, "scaling_factor: is not all ones")

    def test_a_decoder_row_of_zeros_where_its_norm_divides(self, folder: Path):
        edit_weights(folder, lambda w: w["W_dec"][3].zero_())
        assert check_sae(folder, SHAPE)
        edit_config(folder, rescale_acts_by_decoder_norm=True)
        refused(folder, BadWeights, "W_dec: has a row of zeros")

    def test_loading_checks_the_layout_again(self, folder: Path):
        edit_weights(folder, lambda w: w.update(W_enc=torch.zeros(96, 64)))
        with pytest.raises(WidthMismatch):
            load_sae(folder)
        torch.save({}, folder / WEIGHTS)
        with pytest.raises(BadWeights):
            load_sae(folder)
