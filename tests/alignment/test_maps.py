import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from alignment.maps import RECORD_FILE, WEIGHTS_FILE, Affine, Map, MapError, map_from_bytes

shapes = given(seed=st.integers(0, 10**6), ds=st.integers(1, 6), dt=st.integers(1, 6))
quick = settings(max_examples=25, deadline=None)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def affine(seed: int, ds: int, dt: int) -> Affine:
    return Affine(normal(seed, dt, ds), normal(seed + 1, dt))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@quick
@shapes
def test_pushforward_is_the_derivative_and_pullback_its_adjoint(
    seed: int, ds: int, dt: int
) -> None:
    some = affine(seed, ds, dt)
    points, directions, covectors = normal(2, 3, ds), normal(3, 3, ds), normal(4, 3, dt)
    derivative = torch.func.jvp(some.transform, (points,), (directions,))[1]
    torch.testing.assert_close(some.pushforward(directions), derivative)
    adjoint = torch.func.vjp(some.transform, points)[1]
    torch.testing.assert_close(some.pullback(covectors), adjoint(covectors)[0])
    moved = some.transform(points + directions) - some.transform(points)
    torch.testing.assert_close(some.pushforward(directions), moved, rtol=1e-4, atol=1e-4)


@quick
@shapes
def test_then_is_one_after_the_other(seed: int, ds: int, dt: int) -> None:
    first, second, points = affine(seed, ds, dt), affine(seed + 7, dt, 4), normal(5, 3, ds)
    both = first.then(second)
    assert (both.source_width, both.target_width) == (ds, 4)
    expected = second.transform(first.transform(points))
    torch.testing.assert_close(both.transform(points), expected, rtol=1e-4, atol=1e-4)


def test_maps_of_widths_that_do_not_meet_are_not_chained() -> None:
    with pytest.raises(MapError, match="the first writes width 3, the second reads width 5"):
        affine(0, 2, 3).then(affine(1, 5, 2))


@quick
@shapes
def test_bytes_go_round_bit_for_bit(seed: int, ds: int, dt: int) -> None:
    some = affine(seed, ds, dt)
    back = map_from_bytes(some.to_bytes())
    assert isinstance(back, Affine)
    assert torch.equal(back.weight, some.weight)
    assert torch.equal(back.bias, some.bias)
    assert back.to_bytes() == some.to_bytes()


def test_a_transposed_weight_is_stored_as_it_reads() -> None:
    some = Affine(normal(0, 3, 5).mT, normal(1, 5))
    back = map_from_bytes(some.to_bytes())
    assert torch.equal(back.transform(torch.eye(3)), some.transform(torch.eye(3)))


def test_save_and_load_leave_only_the_two_files(tmp_path: Path) -> None:
    some, home = affine(3, 4, 5), tmp_path / "deep" / "map"
    affine(9, 2, 2).save(home)
    some.save(home)
    assert sorted(path.name for path in home.iterdir()) == [RECORD_FILE, WEIGHTS_FILE]
    assert Map.load_map(home).to_bytes() == some.to_bytes()


def test_a_saved_map_needs_no_code_of_ours(tmp_path: Path) -> None:
    some, points = affine(3, 4, 5), normal(6, 2, 4)
    some.save(tmp_path)
    record = json.loads((tmp_path / "map.json").read_text())
    assert (record["source_width"], record["target_width"]) == (4, 5)
    assert record["formula"] == "y = x @ weight.T + bias"
    with safe_open(tmp_path / "map.safetensors", framework="np") as stored:
        weight, bias = stored.get_tensor("weight"), stored.get_tensor("bias")
    by_hand = points.numpy() @ weight.T + bias
    np.testing.assert_allclose(by_hand, some.transform(points), rtol=1e-6, atol=1e-6)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"holds no map: map\.json is missing"):
        Map.load_map(tmp_path)


def test_an_altered_map_is_refused(tmp_path: Path) -> None:
    affine(3, 4, 5).save(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(affine(4, 4, 5).to_bytes())
    with pytest.raises(MapError, match="SHA-256 differs"):
        Map.load_map(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_record_that_is_not_one_is_refused(tmp_path: Path, text: str) -> None:
    affine(3, 4, 5).save(tmp_path)
    (tmp_path / RECORD_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(MapError, match="fetch the map again"):
        Map.load_map(tmp_path)


def test_bytes_that_are_no_map_are_refused() -> None:
    with pytest.raises(MapError, match="whole safetensors file"):
        map_from_bytes(affine(3, 4, 5).to_bytes()[:-1])
    with pytest.raises(MapError, match="only maps of format 1, kind affine"):
        map_from_bytes(save({"weight": torch.zeros(2, 2)}))


def test_a_map_of_a_later_format_is_refused(tmp_path: Path) -> None:
    tensors = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    weights = save(tensors, {"isthmus": '{"format": 2, "kind": "network"}'})
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    (tmp_path / RECORD_FILE).write_text(json.dumps({"sha256": digest}))
    with pytest.raises(MapError, match="holds format 2, kind network"):
        Map.load_map(tmp_path)
