"""Collecting on the tiny model: what is spilled, whatever the sharding."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel, ModelSource, load_model
from interpedia_engine.saes import load_sae
from interpedia_engine.saes.identity import identity_sae
from interpedia_engine.saes.tiny import tiny_sae
from interpedia_ingest.dashboards import nonzeros
from interpedia_ingest.dashboards.collect import collect_shard
from interpedia_ingest.dashboards.errors import BadSelection, BadSettings, BuildCancelled, NotFinite
from interpedia_ingest.dashboards.lens import model_lens
from interpedia_ingest.dashboards.reduce import Reducer
from interpedia_ingest.dashboards.selection import Selection
from interpedia_ingest.dashboards.settings import DashboardSettings
from interpedia_ingest.dashboards.spill import Spill, open_spill
from interpedia_ingest.dashboards.summary import summarise
from interpedia_ingest.dashboards.target import Build, Target
from interpedia_ingest.dashboards.watch import Watch
from tests.ingest.dashboards_support import digest, file_sha256, make_selection, reduce_all

LENGTH = 16
SETTINGS = DashboardSettings(context_length=LENGTH, ignore_ids=(1,), reconstruction_groups=2)
RESID = Hook("resid_post", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(ModelSource(kind="tiny"), cache_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def selection(model: LanguageModel) -> Selection:
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, model.shape.d_vocab, (150, LENGTH))
    tokens[:, 0] = model.bos_id
    return make_selection(tokens)


@pytest.fixture(scope="module")
def targets(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    folder = tmp_path_factory.mktemp("saes")
    kinds = ("topk", "abstopk", "jumprelu", "skip_transcoder")
    made: list[Target] = []
    for kind in kinds:
        hook = Hook("mlp_input", 1) if kind == "skip_transcoder" else RESID
        path = tiny_sae(folder / kind, shape=model.shape, hook=hook, overrides={"architecture": kind})
        out = Hook("mlp_out", 1) if kind == "skip_transcoder" else hook
        made.append(Target(kind, load_sae(path), hook, out))
    neurons = Hook("mlp_post", 1)
    return [*made, Target("neurons", identity_sae(neurons, model.shape), neurons, neurons)]


def _collect(build: Build, selection: Selection, folder: Path, cuts: list[int]) -> dict[str, list[Spill]]:
    spills: dict[str, list[Spill]] = {target.name: [] for target in build.targets}
    for start, stop in itertools.pairwise(cuts):
        report = collect_shard(build, selection, rows=range(start, stop), out_dir=folder)
        for spill in report.spills:
            spills[spill.sae].append(open_spill(spill.path))
            assert spills[spill.sae][-1].digest == spill.digest
    return spills


def _digest(build: Build, selection: Selection, target: Target, spills: list[Spill]) -> str:
    is_identity = target.name == "neurons"
    reducer = Reducer(
        spills,
        selection,
        settings=build.settings,
        decoder=None if is_identity else target.sae.W_dec,
        logit_effects=model_lens(build.model, target, build.settings),
    )
    return digest(reduce_all(reducer))


def test_any_sharding_gives_the_same_bytes(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    build = Build(model, targets, SETTINGS)
    seen: dict[str, set[object]] = {target.name: set() for target in targets}
    for number, cuts in enumerate(([0, 150], [0, 96, 150], [0, 32, 64, 96, 128, 150])):
        spills = _collect(build, selection, tmp_path / str(number), cuts)
        for target in targets:
            found = _digest(build, selection, target, spills[target.name])
            seen[target.name].add((found, summarise(spills[target.name])))
    assert all(len(results) == 1 for results in seen.values())


def test_collecting_twice_writes_the_same_file(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    build = Build(model, targets, SETTINGS)
    reports = [
        collect_shard(build, selection, rows=range(32, 96), out_dir=tmp_path / name)
        for name in ("a", "b", "a")
    ]
    for one, two, three in zip(*(report.spills for report in reports), strict=True):
        assert file_sha256(one.path) == file_sha256(two.path) == file_sha256(three.path)
        assert one.digest == two.digest
    assert sorted(path.suffix for path in (tmp_path / "a").iterdir()) == [".spill"] * len(targets)


def test_spills_hold_the_saes_activations(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    build = Build(model, targets, SETTINGS)
    spills = _collect(build, selection, tmp_path, [0, 32])
    tokens = torch.from_numpy(selection.tokens[:32].astype(np.int64))
    captured = capture(model, tokens, build.hooks)
    for target in targets:
        (spill,) = spills[target.name]
        expected = target.sae.encode(captured[target.hook_in]).reshape(32 * LENGTH, -1).numpy().copy()
        expected.reshape(32, LENGTH, -1)[:, 0] = 0
        found = np.zeros_like(expected)
        owners = np.repeat(np.arange(target.sae.d_sae), np.diff(spill.feature_offsets))
        found[spill.arrays["tokens"], owners] = spill.arrays["values"]
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert spill.header.n_counted == 32 * (LENGTH - 1)
    assert (spills["abstopk"][0].arrays["values"] < 0).any()
    assert (spills["neurons"][0].arrays["values"] < 0).any()


def test_the_reconstruction_is_measured_against_what_is_reconstructed(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    build = Build(model, targets, SETTINGS)
    spills = _collect(build, selection, tmp_path, [0, 96, 150])
    tokens = torch.from_numpy(selection.tokens.astype(np.int64))
    for target in targets:
        found = summarise(spills[target.name]).reconstruction
        assert found is not None
        wanted, given = [], []
        for first in (0, 96):  # 5 groups, 2 to measure: every third
            captured = capture(model, tokens[first : first + 32], build.hooks)
            x = captured[target.hook_in][:, 1:].reshape(-1, target.sae.d_in)[::4]
            wanted.append(captured[target.hook_out][:, 1:].reshape(-1, target.sae.d_out)[::4].double())
            given.append(target.sae.decode(target.sae.encode(x), x).double())
        y, y_hat = torch.cat(wanted), torch.cat(given)
        r_squared = 1 - (y - y_hat).square().sum() / (y - y.mean(dim=0)).square().sum()
        assert found.n_tokens == len(y)
        assert found.r_squared == pytest.approx(float(r_squared), abs=1e-6)


def test_chunks_of_tokens_lose_nothing(
    model: LanguageModel,
    selection: Selection,
    targets: list[Target],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(model, targets[:1], SETTINGS)
    whole = _collect(build, selection, tmp_path / "a", [0, 150])["topk"][0]
    monkeypatch.setattr(nonzeros, "MOST_BYTES", 4 * targets[0].sae.d_sae * 50)
    chunked = _collect(build, selection, tmp_path / "b", [0, 150])["topk"][0]
    assert np.array_equal(whole.arrays["tokens"], chunked.arrays["tokens"])
    assert np.allclose(whole.arrays["values"], chunked.arrays["values"], rtol=1e-4)
    assert summarise([whole]).reconstruction.n_tokens <= summarise([chunked]).reconstruction.n_tokens


def test_bos_counts_only_when_it_is_asked_for(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    masked = _collect(Build(model, targets[:1], SETTINGS), selection, tmp_path / "a", [0, 150])["topk"]
    everything = DashboardSettings(context_length=LENGTH, prepend_bos=False)
    unmasked = _collect(Build(model, targets[:1], everything), selection, tmp_path / "b", [0, 150])["topk"]
    assert not (masked[0].arrays["tokens"] % LENGTH == 0).any()
    assert (unmasked[0].arrays["tokens"] % LENGTH == 0).any()  # the control
    assert summarise(masked).n_masked == 150
    assert summarise(unmasked).n_masked == 0


def test_ignored_ids_positions_and_norms_do_not_count(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    ignored = int(selection.tokens[3, 5])
    settings = DashboardSettings(
        context_length=LENGTH, ignore_ids=(ignored,), ignore_positions=(7,), norm_multiple=1.0
    )
    (spill,) = _collect(Build(model, targets[:1], settings), selection, tmp_path, [0, 150])["topk"]
    counted = spill.counted()
    assert not counted[:, [0, 7]].any()
    assert not counted[selection.tokens == ignored].any()
    share = counted.mean() / (1 - 2 / LENGTH)
    assert 0.3 < share < 0.7  # half of the norms lie above the median
    cut = _collect(Build(model, targets[:1], settings), selection, tmp_path / "cut", [0, 64, 150])["topk"]
    assert np.array_equal(np.concatenate([part.counted() for part in cut]), counted)


def test_impossible_requests_are_refused(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    build = Build(model, targets[:1], SETTINGS)
    for rows in (range(5, 32), range(31), range(160), range(32, 32), range(0, 64, 2)):
        with pytest.raises(BadSelection, match="rows"):
            collect_shard(build, selection, rows=rows, out_dir=tmp_path)
    with pytest.raises(BadSelection, match="16 tokens"):
        collect_shard(
            Build(model, targets[:1], DashboardSettings()), selection, rows=range(32), out_dir=tmp_path
        )
    with pytest.raises(BadSettings, match="same name"):
        Build(model, [targets[0], targets[0]], SETTINGS)
    with pytest.raises(BadSettings, match="at least one"):
        Build(model, [], SETTINGS)
    with pytest.raises(BadSettings, match="name"):
        Target("../escape", targets[0].sae, RESID, RESID)
    assert not list(tmp_path.iterdir())


def test_a_cancelled_shard_leaves_no_file(
    model: LanguageModel, selection: Selection, targets: list[Target], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    watch = Watch(
        progress=lambda done, total: seen.append((done, total)), should_cancel=lambda: len(seen) == 2
    )
    with pytest.raises(BuildCancelled):
        collect_shard(
            Build(model, targets, SETTINGS), selection, rows=range(96), out_dir=tmp_path, watch=watch
        )
    assert seen == [(32, 96), (64, 96)]
    assert not list(tmp_path.iterdir())


def test_activations_that_are_not_finite_are_refused(
    model: LanguageModel, selection: Selection, tmp_path: Path
) -> None:
    path = tiny_sae(tmp_path / "sae", shape=model.shape, hook=RESID, overrides={"architecture": "standard"})
    sae = load_sae(path)
    sae.weights["b_enc"][3] = float("inf")
    with pytest.raises(NotFinite, match="feature 3 of x"):
        collect_shard(
            Build(model, [Target("x", sae, RESID, RESID)], SETTINGS),
            selection,
            rows=range(32),
            out_dir=tmp_path,
        )


def test_the_lens_goes_through_the_model(
    model: LanguageModel, selection: Selection, targets: list[Target]
) -> None:
    by_name = {target.name: target for target in targets}
    effects = model_lens(model, by_name["topk"], SETTINGS)
    assert effects is not None
    gain = model.hf.get_submodule("model.norm").weight
    expected = (by_name["topk"].sae.W_dec[3:9] * gain) @ model.unembedding.T
    assert torch.allclose(effects(range(3, 9)), expected, atol=1e-5)
    plain = model_lens(model, by_name["topk"], DashboardSettings(final_norm_gain=False))
    assert plain is not None
    assert not torch.allclose(plain(range(3, 9)), expected, atol=1e-3)
    neurons = model_lens(model, by_name["neurons"], SETTINGS)
    assert neurons is not None
    assert neurons(range(2)).shape == (2, model.shape.d_vocab)
    before = Hook("mlp_pre", 1)
    hidden = Target("pre", identity_sae(before, model.shape), before, before)
    assert model_lens(model, hidden, SETTINGS) is None
