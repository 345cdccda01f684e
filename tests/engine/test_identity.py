"""The identity dictionary: neurons and residual coordinates as features."""

from pathlib import Path

import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.errors import BadWeights, OutOfRange, WidthMismatch
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel
from interpedia_engine.saes import IdentitySAE, check_sae, identity_sae, load_sae, tiny_sae


def test_neurons_are_their_own_features(tiny: LanguageModel):
    hook = Hook("mlp_post", 2)
    neurons = identity_sae(hook, tiny.shape)
    x = capture(tiny, torch.tensor([[1, 300, 301, 302]]), [hook])[hook]
    assert (neurons.d_in, neurons.d_sae, neurons.d_out) == (160, 160, 160)
    assert torch.equal(neurons.encode(x), x)
    assert torch.equal(neurons.decode(neurons.encode(x)), x)
    assert (neurons.encode(x) < 0).any()
    assert neurons.W_enc is None
    with pytest.raises(WidthMismatch, match="x"):
        neurons.encode(x[..., :64])


def test_positive_part_only(tiny: LanguageModel):
    neurons = identity_sae(Hook("mlp_post", 2), tiny.shape, is_positive_only=True)
    x = torch.randn(5, 160)
    assert torch.equal(neurons.encode(x), x.clamp(min=0))


def test_rows_are_unit_vectors(tiny: LanguageModel):
    basis = identity_sae(Hook("resid_post", 2), tiny.shape)
    assert torch.equal(basis.decoder_rows(0, 64), torch.eye(64))
    assert torch.equal(basis.W_dec, torch.eye(64))
    assert torch.equal(basis.decoder_rows(10, 13), torch.eye(64)[10:13])
    with pytest.raises(OutOfRange):
        basis.decoder_rows(60, 65)


def test_from_a_configuration_without_weights(tiny: LanguageModel, tmp_path: Path):
    hook = Hook("mlp_post", 1)
    folder = tiny_sae(
        tmp_path,
        shape=tiny.shape,
        hook=hook,
        overrides={"architecture": "identity", "is_positive_only": True},
    )
    info = check_sae(folder, tiny.shape)
    assert (info.hook, info.weights_sha256, info.decoder_norms) == (hook, None, None)
    sae = load_sae(folder)
    assert isinstance(sae, IdentitySAE)
    assert sae.cfg.is_positive_only


def test_with_weights_or_another_width_it_is_refused(tiny: LanguageModel, tmp_path: Path):
    where = {"shape": tiny.shape, "hook": Hook("mlp_post", 1)}
    narrow = tiny_sae(tmp_path / "a", **where, overrides={"architecture": "identity", "d_sae": 80})
    with pytest.raises(WidthMismatch, match="d_sae: 80 differs from d_in 160"):
        check_sae(narrow, tiny.shape)
    folder = tiny_sae(tmp_path / "b", **where, overrides={"architecture": "identity"})
    (folder / "sae_weights.safetensors").write_bytes(b"")
    with pytest.raises(BadWeights, match="has no weights"):
        check_sae(folder, tiny.shape)
