"""Encode and decode against sae-lens, for every architecture and option that it can load for inference."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpedia_engine.errors import BadSAEConfig, MissingInput, OutOfRange, WidthMismatch
from interpedia_engine.hooks import Hook, ModelShape
from interpedia_engine.saes import SAE, check_sae, load_sae, prepare_input, tiny_sae
from interpedia_engine.saes.config import TRANSCODERS, SAEConfig
from interpedia_engine.saes.loading import CLASSES, build_sae

pytestmark = pytest.mark.filterwarnings("ignore")
D_IN, D_SAE, D_OUT = 24, 80, 32
SHAPE = ModelShape(4, D_IN, 40, 4, 6, 100, "gpt2")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def sae_lens_sae(folder: Path, architecture: str, **fields: Any) -> Any:
    """Build an SAE with sae-lens, give every weight a random value, save it and load it again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
        from sae_lens.registry import get_sae_class
        from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_class(architecture)
    is_transcoder = architecture in TRANSCODERS
    hook = (
        "blocks.1.attn.hook_z"
        if fields.get("reshape_activations") == "hook_z"
        else "blocks.1.hook_resid_post"
    )
    metadata = SAEMetadata(
        model_name="gpt2", hook_name=hook, hook_name_out="blocks.1.mlp.hook_post", prepend_bos=True
    )
    if is_transcoder:
        fields = {"d_out": D_OUT, "apply_b_dec_to_input": False} | fields
    theirs = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, metadata=metadata, **fields))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                noise.abs() * 0.5 if name == "threshold" else noise * (0.3 if noise.ndim > 1 else 0.7)
            )
    theirs.save_model(folder)
    return sae_lens.SAE.load_from_disk(folder)


def inputs(*size: int) -> torch.Tensor:
    return torch.randn(*size, D_IN, generator=torch.Generator().manual_seed(11)) * 3 + 0.5


def assert_same(theirs: Any, ours: SAE, x: torch.Tensor, heads: int | None = None) -> torch.Tensor:
    with torch.no_grad():
        their_x = x.unflatten(-1, (heads, -1)) if heads else x
        expected = theirs.encode(their_x)
        f = ours.encode(x)
        torch.testing.assert_close(f, expected, **CLOSE)
        # sae-lens remembers the input's size between encode and decode; forward does both.
        output = theirs(their_x)
        torch.testing.assert_close(ours.decode(f, x), output.flatten(-2) if heads else output, **CLOSE)
    assert (f != 0).any()
    assert (f == 0).any()
    return f


ARCHITECTURES = sorted(CLASSES)


def test_every_architecture_of_sae_lens_is_run_or_refused():
    from sae_lens.registry import SAE_CLASS_REGISTRY

    assert set(SAE_CLASS_REGISTRY) == set(CLASSES) | {"temporal", "matching_pursuit"}


@pytest.mark.parametrize("normalization", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize(
    ("architecture", "apply_b_dec"),
    [
        (name, applies)
        for name in ARCHITECTURES
        for applies in (False, True)
        if not (applies and name in TRANSCODERS)
    ],
)
def test_options(tmp_path: Path, architecture: str, normalization: str, apply_b_dec: bool):
    extra = {"k": 9} if "topk" in architecture else {}
    theirs = sae_lens_sae(
        tmp_path,
        architecture,
        normalize_activations=normalization,
        apply_b_dec_to_input=apply_b_dec,
        **extra,
    )
    ours = load_sae(tmp_path)
    assert ours.cfg.architecture == architecture
    assert_same(theirs, ours, inputs(3, 7))


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_rescale_acts_by_decoder_norm(tmp_path: Path, architecture: str):
    theirs = sae_lens_sae(tmp_path, architecture, k=9, rescale_acts_by_decoder_norm=True)
    f = assert_same(theirs, load_sae(tmp_path), inputs(5, 4))
    plain = SAEConfig(
        architecture=architecture, d_in=D_IN, d_sae=D_SAE, d_out=D_IN, k=9, apply_b_dec_to_input=True
    )
    unscaled = build_sae(plain, load_sae(tmp_path).weights).encode(inputs(5, 4))
    assert ((f != 0) != (unscaled != 0)).any(), "the control: without the option other features are chosen"


def test_abstopk_keeps_signs_and_exactly_k(tmp_path: Path):
    f = assert_same(sae_lens_sae(tmp_path, "abstopk", k=9), load_sae(tmp_path), inputs(50))
    assert (f < 0).any()
    assert (f > 0).any()
    assert ((f != 0).sum(-1) == 9).all()


def test_topk_drops_negative_ones_among_its_k(tmp_path: Path):
    f = assert_same(sae_lens_sae(tmp_path, "topk", k=70), load_sae(tmp_path), inputs(50))
    assert (f >= 0).all()
    assert ((f != 0).sum(-1) < 70).all()


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "abstopk", "jumprelu"])
def test_heads_are_flattened(tmp_path: Path, architecture: str):
    extra = {"k": 9} if "topk" in architecture else {}
    theirs = sae_lens_sae(tmp_path, architecture, reshape_activations="hook_z", **extra)
    assert check_sae(tmp_path, SHAPE).hook == Hook("attn_z", 1)
    assert_same(theirs, load_sae(tmp_path), inputs(3, 4), heads=4)


def test_batchtopk_is_saved_as_jumprelu(tmp_path: Path):
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    training = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=6))
    training.topk_threshold.fill_(0.02)
    training.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    training.save_inference_model(tmp_path)
    import sae_lens

    ours = load_sae(tmp_path)
    assert (ours.cfg.architecture, ours.cfg.training_architecture) == ("jumprelu", "batchtopk")
    assert_same(sae_lens.SAE.load_from_disk(tmp_path), ours, inputs(20))


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "jumprelu"])
def test_a_given_norm_scale_is_folded_as_sae_lens_folds_it(tmp_path: Path, architecture: str):
    extra = {"k": 9} if architecture == "topk" else {}
    theirs = sae_lens_sae(tmp_path, architecture, normalize_activations="expected_average_only_in", **extra)
    with pytest.raises(BadSAEConfig, match=r"normalize_activations: .*number that the file lacks"):
        load_sae(tmp_path)
    text = (tmp_path / "cfg.json").read_text()
    (tmp_path / "cfg.json").write_text(
        text.replace('"metadata": {', '"metadata": {"norm_scaling_factor": 0.37, ')
    )
    theirs.fold_activation_norm_scaling_factor(0.37)
    assert_same(theirs, load_sae(tmp_path), inputs(20))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_compute_in_float32(tmp_path: Path, dtype: str):
    sae_lens_sae(tmp_path, "jumprelu", dtype=dtype)
    ours = load_sae(tmp_path)
    assert ours.dtype == torch.float32
    import sae_lens

    assert_same(sae_lens.SAE.load_from_disk(tmp_path, dtype="float32"), ours, inputs(20))
    low = load_sae(tmp_path, dtype=torch.bfloat16)
    assert low.encode(inputs(2)).dtype == torch.bfloat16


def test_old_flat_configurations_read_as_sae_lens_reads_them(tmp_path: Path):
    sae_lens_sae(tmp_path, "standard")
    (tmp_path / "cfg.json").write_text(
        f'{{"d_in": {D_IN}, "d_sae": {D_SAE}, "dtype": "torch.float32", "device": "cuda",'
        ' "hook_point": "blocks.1.hook_resid_post", "hook_point_layer": 1, "activation_fn_str": "relu",'
        ' "model_name": "gpt2-small", "normalize_activations": false, "context_size": 128}'
    )
    ours = load_sae(tmp_path)
    assert ours.cfg.hook_name == "blocks.1.hook_resid_post"
    assert ours.cfg.apply_b_dec_to_input
    assert ours.cfg.prepend_bos
    assert "before SAELens 6" in ours.cfg.notes[0]
    import sae_lens

    theirs = sae_lens.SAE.load_from_disk(tmp_path, dtype="float32")
    assert_same(theirs, ours, inputs(10))
    text = (tmp_path / "cfg.json").read_text()
    topk = text.replace(
        '"activation_fn_str": "relu"', '"activation_fn": "topk", "activation_fn_kwargs": {"k": 5}'
    )
    (tmp_path / "cfg.json").write_text(topk)
    ours = load_sae(tmp_path)
    assert (ours.cfg.architecture, ours.cfg.k) == ("topk", 5)
    assert_same(sae_lens.SAE.load_from_disk(tmp_path, dtype="float32"), ours, inputs(10))


class TestContract:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_leading_dimensions_do_not_matter(self, tmp_path: Path, architecture: str):
        ours = load_sae(
            tiny_sae(
                tmp_path, shape=SHAPE, hook=Hook("resid_post", 1), overrides={"architecture": architecture}
            )
        )
        x = inputs(2, 3, 4)
        f = ours.encode(x)
        assert f.shape == (2, 3, 4, ours.d_sae)
        torch.testing.assert_close(ours.encode(x[1, 2, 3]), f[1, 2, 3], **CLOSE)
        assert ours.decode(f, x).shape == (2, 3, 4, ours.d_out)
        assert ours.W_enc is not None
        assert ours.W_enc.shape == (ours.d_in, ours.d_sae)
        assert torch.equal(ours.decoder_rows(5, 9), ours.W_dec[5:9])

    @pytest.mark.parametrize("architecture", [*ARCHITECTURES, "identity"])
    def test_nonzeros_are_those_of_the_dense_activations(self, tmp_path: Path, architecture: str):
        where = {"shape": SHAPE, "hook": Hook("resid_post", 1)}
        ours = load_sae(tiny_sae(tmp_path, **where, overrides={"architecture": architecture}))
        x = inputs(40)
        dense = ours.encode(x)
        found = ours.encode_nonzero(x)
        assert torch.equal(torch.stack([found.token, found.feature], dim=1), dense.nonzero())
        assert torch.equal(found.value, dense[dense != 0])

    @settings(max_examples=8, deadline=None)
    @given(data=st.data())
    @pytest.mark.parametrize("rescales", [False, True])
    @pytest.mark.parametrize("architecture", [*ARCHITECTURES, "identity"])
    def test_a_decoder_row_is_what_a_unit_of_activation_adds(
        self, tmp_path_factory: pytest.TempPathFactory, architecture: str, rescales: bool, data: st.DataObject
    ):
        folder = tmp_path_factory.mktemp("sae")
        overrides: dict[str, Any] = {"architecture": architecture, "rescale_acts_by_decoder_norm": rescales}
        if architecture in CLASSES and architecture not in TRANSCODERS and data.draw(st.booleans()):
            overrides |= {"normalize_activations": "expected_average_only_in"}
            overrides |= {"metadata": {"norm_scaling_factor": data.draw(st.floats(0.1, 10.0))}}
        seed = data.draw(st.integers(0, 1000))
        ours = load_sae(
            tiny_sae(folder, shape=SHAPE, hook=Hook("resid_post", 1), seed=seed, overrides=overrides)
        )
        start = data.draw(st.integers(0, ours.d_sae - 1))
        stop = data.draw(st.integers(start + 1, ours.d_sae))
        ones = torch.eye(ours.d_sae)[start:stop]
        x = inputs(1).expand(stop - start, -1)
        added = ours.decode(ones, x) - ours.decode(torch.zeros_like(ones), x)
        rows = ours.decoder_rows(start, stop)
        torch.testing.assert_close(rows, added, rtol=1e-4, atol=1e-4)
        if rescales and "topk" in architecture:
            torch.testing.assert_close(rows.norm(dim=1), torch.ones(stop - start))
            assert not torch.allclose(rows, ours.W_dec[start:stop]), "W_dec stays as stored"

    def test_another_width_is_refused(self, tmp_path: Path):
        ours = load_sae(tiny_sae(tmp_path, shape=SHAPE, hook=Hook("resid_post", 1)))
        for encode in (ours.encode, ours.encode_nonzero):
            with pytest.raises(WidthMismatch, match="x: has width 25, the SAE reads 24"):
                encode(torch.zeros(3, 25))

    @pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 97), (97, 98)])
    def test_rows_outside_the_dictionary_are_refused(self, tmp_path: Path, start: int, stop: int):
        ours = load_sae(tiny_sae(tmp_path, shape=SHAPE, hook=Hook("resid_post", 1)))
        with pytest.raises(OutOfRange, match=r"not within 0\.\.96"):
            ours.decoder_rows(start, stop)

    @pytest.mark.parametrize(
        "overrides",
        [
            {"architecture": "skip_transcoder"},
            {"architecture": "jumprelu_skip_transcoder"},
            {"normalize_activations": "layer_norm"},
            {"normalize_activations": "constant_norm_rescale"},
        ],
    )
    def test_an_output_that_needs_the_input_says_so(self, tmp_path: Path, overrides: dict[str, Any]):
        ours = load_sae(tiny_sae(tmp_path, shape=SHAPE, hook=Hook("resid_post", 1), overrides=overrides))
        with pytest.raises(MissingInput, match="x: "):
            ours.decode(torch.zeros(3, ours.d_sae))

    def test_centred_training_is_undone_by_centring_the_input(self, tmp_path: Path):
        centred = {
            "model_from_pretrained_kwargs": {"center_writing_weights": True, "trust_remote_code": True}
        }
        where = {"shape": SHAPE, "hook": Hook("resid_pre", 1)}
        plain = load_sae(tiny_sae(tmp_path / "a", **where))
        ours = load_sae(tiny_sae(tmp_path / "b", **where, overrides={"metadata": centred}))
        x = inputs(30)
        assert torch.equal(prepare_input(x, plain.cfg), x)
        target = prepare_input(x, ours.cfg)
        torch.testing.assert_close(target, x - x.mean(-1, keepdim=True))
        assert torch.equal(ours.encode(x), plain.encode(target))
        torch.testing.assert_close(ours.encode(target), ours.encode(x), **CLOSE)
        assert not torch.equal(ours.encode(x), plain.encode(x))

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**31), n=st.integers(1, 30), k=st.integers(1, 80))
    def test_topk_of_anything(self, seed: int, n: int, k: int):
        generator = torch.Generator().manual_seed(seed)
        weights = {
            "W_enc": torch.randn(D_IN, D_SAE, generator=generator),
            "W_dec": torch.randn(D_SAE, D_IN, generator=generator),
            "b_enc": torch.randn(D_SAE, generator=generator),
            "b_dec": torch.randn(D_IN, generator=generator),
        }
        cfg = SAEConfig(architecture="topk", d_in=D_IN, d_sae=D_SAE, d_out=D_IN, k=k)
        x = torch.randn(n, D_IN, generator=generator)
        f = build_sae(cfg, weights).encode(x)
        dense = (x @ weights["W_enc"] + weights["b_enc"]).relu()
        assert ((f != 0).sum(-1) <= k).all()
        assert ((f == 0) | (f == dense)).all()
        assert (torch.where(f == 0, dense, 0).amax(-1) <= torch.where(f > 0, f, torch.inf).amin(-1)).all()
