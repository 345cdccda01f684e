"""Vectors and files of SAEs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from httpx import AsyncClient
from safetensors.numpy import load

from interpedia_gateway.features.vectors import NoTensor, read_direction, unit_direction
from interpedia_shared.blobs import BlobStore
from interpedia_shared.problems import Unavailable
from tests.support.factories import World, make_weights


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 16, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_a_broken_file_is_unavailable_not_a_crash(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights"
    file.write_bytes(content)
    with pytest.raises(Unavailable):
        read_direction(file, "decoder", 0)
    with pytest.raises(Unavailable):
        read_direction(tmp_path / "none", "decoder", 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_and_columns_are_the_files(tmp_path: Path, dtype: type) -> None:
    store = BlobStore(tmp_path)
    uri, _, _ = make_weights(store, d_in=8, d_sae=40, dtype=dtype)
    expected = (7 + np.arange(8) / 100).astype(dtype).astype(np.float32)
    assert np.array_equal(read_direction(store.path(uri), "decoder", 7).values, expected)
    assert np.array_equal(read_direction(store.path(uri), "encoder", 7).values, -expected)


def test_bfloat16_equals_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    w_dec = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_file({"W_dec": w_dec}, tmp_path / "weights")
    found = read_direction(tmp_path / "weights", "decoder", 3)
    assert found.dtype == "BF16"
    assert np.array_equal(found.values, w_dec[3].float().numpy())
    with pytest.raises(NoTensor):
        read_direction(tmp_path / "weights", "encoder", 3)


def test_raw_neurons_point_at_themselves() -> None:
    assert unit_direction(4, 2).values.tolist() == [0, 0, 1, 0]


async def test_vector_route_gives_values_and_norm(client: AsyncClient, world: World) -> None:
    decoder = (await client.get(f"{world.path}/features/7/vector")).json()
    expected = (7 + np.arange(8) / 100).astype(np.float32)
    assert decoder["values"] == expected.tolist()
    assert decoder["norm"] == pytest.approx(np.linalg.norm(expected))
    assert (decoder["which"], decoder["dtype"]) == ("decoder", "F32")
    encoder = (await client.get(f"{world.path}/features/7/vector?which=encoder")).json()
    assert encoder["values"] == (-expected).tolist()
    assert (await client.get(f"{world.path}/features/7/vector?which=sideways")).status_code == 422


async def test_files_are_downloaded_whole_and_in_ranges(client: AsyncClient, world: World) -> None:
    sae = (await client.get(world.path)).json()
    path = f"{world.path}/weights/sae_weights.safetensors"
    whole = await client.get(path, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in whole.headers
    assert len(whole.content) == sae["weights"]["size"]
    assert load(whole.content)["W_dec"].shape == (40, 8)
    part = await client.get(path, headers={"Range": "bytes=8-15"})
    assert (part.status_code, part.content) == (206, whole.content[8:16])
    outside = await client.get(path, headers={"Range": "bytes=99999999-"})
    assert outside.status_code == 416
    assert outside.headers["content-range"] == f"bytes */{len(whole.content)}"
    again = await client.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert again.status_code == 304
    config = await client.get(f"{world.path}/weights/cfg.json")
    assert config.json() == sae["config"]
    assert (await client.get(f"{world.path}/weights/passwd")).status_code == 422


async def test_weights_that_are_gone_are_503(
    own_client: AsyncClient, own_world: World, tmp_path: Path
) -> None:
    for blob in (tmp_path / "blobs").glob("??/*"):
        blob.unlink()
    for tail in ("weights/sae_weights.safetensors", "features/0/vector"):
        answer = await own_client.get(f"{own_world.path}/{tail}")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    assert (await own_client.get(f"{own_world.path}/features/0")).status_code == 200
