import hashlib
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from alignment.maps import (
    KINDS,
    RECORD_FILE,
    WEIGHTS_FILE,
    Affine,
    Linear,
    LowRank,
    Map,
    MapError,
    Mixture,
    Network,
    map_from_bytes,
)

shapes = given(seed=st.integers(0, 10**6), ds=st.integers(1, 6), dt=st.integers(1, 6))
quick = settings(max_examples=25)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def affine(seed: int, ds: int, dt: int) -> Affine:
    return Affine(normal(seed, dt, ds), normal(seed + 1, dt))


def low_rank(seed: int, ds: int, dt: int, rank: int = 2) -> LowRank:
    return LowRank(normal(seed, dt, rank), normal(seed + 1, rank, ds), normal(seed + 2, dt))


def network(seed: int, ds: int, dt: int, h: int = 3) -> Network:
    layers = normal(seed + 2, h, ds), normal(seed + 3, h), normal(seed + 4, dt, h)
    return Network.over(normal(seed + 5, 9, ds), affine(seed, ds, dt), *layers)


def mixture(seed: int, ds: int, dt: int, e: int = 3) -> Mixture:
    experts = normal(seed, e, dt, ds), normal(seed + 1, e, dt)
    return Mixture.of(*experts, normal(seed + 2, e, ds), normal(seed + 3, e)).over(
        normal(seed + 5, 9, ds)
    )


LINEAR: dict[str, Callable[[int, int, int], Linear]] = {"affine": affine, "low_rank": low_rank}
BENT: dict[str, Callable[[int, int, int], Map]] = {"network": network, "mixture": mixture}
MAKERS: dict[str, Callable[[int, int, int], Map]] = {**LINEAR, **BENT}
linear_kinds = pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
bent_kinds = pytest.mark.parametrize("make", BENT.values(), ids=BENT)
every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def test_every_kind_is_tried_here() -> None:
    assert set(MAKERS) == set(KINDS)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@linear_kinds
@quick
@shapes
def test_pushforward_is_the_derivative_and_pullback_its_adjoint(
    make: Callable[..., Linear], seed: int, ds: int, dt: int
) -> None:
    some = make(seed, ds, dt)
    points, directions, covectors = normal(2, 3, ds), normal(3, 3, ds), normal(4, 3, dt)
    derivative = torch.func.jvp(some.transform, (points,), (directions,))[1]
    torch.testing.assert_close(some.pushforward(directions), derivative)
    adjoint = torch.func.vjp(some.transform, points)[1]
    torch.testing.assert_close(some.pullback(covectors), adjoint(covectors)[0])
    moved = some.transform(points + directions) - some.transform(points)
    torch.testing.assert_close(some.pushforward(directions), moved, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@bent_kinds
@quick
@shapes
def test_what_is_bent_pushes_forward_by_its_mean_derivative(
    make: Callable[..., Map], seed: int, ds: int, dt: int
) -> None:
    some, directions, covectors = make(seed, ds, dt), normal(3, 3, ds), normal(4, 3, dt)
    points = normal(seed + 5, 9, ds)
    for direction, pushed in zip(directions, some.pushforward(directions), strict=True):
        derivative = torch.func.jvp(some.transform, (points,), (direction.expand(9, ds),))[1]
        torch.testing.assert_close(pushed, derivative.mean(0), rtol=1e-4, atol=1e-5)
    for covector, pulled in zip(covectors, some.pullback(covectors), strict=True):
        adjoint = torch.func.vjp(some.transform, points)[1]
        (derivative,) = adjoint(covector.expand(9, dt))
        torch.testing.assert_close(pulled, derivative.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("links", [*product(LINEAR, LINEAR)], ids=" then ".join)
@quick
@shapes
def test_then_is_one_after_the_other(links: tuple[str, str], seed: int, ds: int, dt: int) -> None:
    first, second = LINEAR[links[0]](seed, ds, dt), LINEAR[links[1]](seed + 7, dt, 4)
    both, points = first.then(second), normal(5, 3, ds)
    assert both.kind == ("affine" if links == ("affine", "affine") else "low_rank")
    assert (both.source_width, both.target_width) == (ds, 4)
    expected = second.transform(first.transform(points))
    torch.testing.assert_close(both.transform(points), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ranks", [(2, 3), (3, 2), (3, 3)])
def test_a_chain_is_cut_where_it_is_narrowest(ranks: tuple[int, int]) -> None:
    chain = low_rank(0, 9, 8, ranks[0]).then(affine(1, 8, 8)).then(low_rank(2, 8, 7, ranks[1]))
    assert isinstance(chain, LowRank)
    assert chain.rank == min(ranks)


def test_a_chain_is_rounded_once_a_link() -> None:
    first, second = affine(0, 40, 30), low_rank(1, 30, 20)
    chained = first.then(second)
    assert isinstance(chained, LowRank)
    assert torch.equal(chained.left, second.left)
    assert torch.equal(chained.right, (second.right.double() @ first.weight.double()).float())


@pytest.mark.parametrize("links", [*product(MAKERS, MAKERS)], ids=" then ".join)
def test_maps_of_widths_that_do_not_meet_are_not_chained(links: tuple[str, str]) -> None:
    with pytest.raises(MapError, match="the first writes width 3, the second reads width 5"):
        MAKERS[links[0]](0, 2, 3).then(MAKERS[links[1]](1, 5, 2))


@pytest.mark.parametrize("links", [*set(product(MAKERS, MAKERS)) - set(product(LINEAR, LINEAR))])
def test_what_is_bent_is_not_multiplied_out(links: tuple[str, str]) -> None:
    line = rf"^cannot chain maps of kind {links[0]} and {links[1]} into one: only linear maps can"
    with pytest.raises(MapError, match=line):
        MAKERS[links[0]](0, 2, 3).then(MAKERS[links[1]](1, 3, 2))


@every_kind
@quick
@shapes
def test_bytes_go_round_bit_for_bit(make: Callable[..., Map], seed: int, ds: int, dt: int) -> None:
    some = make(seed, ds, dt)
    back = map_from_bytes(some.to_bytes())
    assert type(back) is type(some)
    assert back.record() == some.record()
    for name, tensor in some.tensors().items():
        assert torch.equal(back.tensors()[name], tensor)
    assert back.to_bytes() == some.to_bytes()


def test_a_low_rank_map_is_small() -> None:
    small, large = low_rank(0, 200, 300), affine(0, 200, 300)
    assert len(small.to_bytes()) < 0.05 * len(large.to_bytes())


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


@every_kind
def test_a_saved_map_needs_no_code_of_ours(make: Callable[..., Map], tmp_path: Path) -> None:
    """But torch, or NumPy where the map is linear."""
    some, points = make(3, 4, 5), normal(6, 2, 4)
    some.save(tmp_path)
    record = json.loads((tmp_path / "map.json").read_text())
    assert (record["source_width"], record["target_width"]) == (4, 5)
    assert record.get("rank") == (2 if record["kind"] == "low_rank" else None)
    assert record.get("neurons") == (3 if record["kind"] == "network" else None)
    assert record.get("experts") == (3 if record["kind"] == "mixture" else None)
    answer, formula = record["formula"].split(" = ")
    assert answer == "y"
    for framework in ("np", "pt") if isinstance(some, Linear) else ("pt",):
        with safe_open(tmp_path / "map.safetensors", framework=framework) as stored:
            known = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        x = points.numpy() if framework == "np" else points
        by_hand = eval(formula, {"torch": torch, "x": x, **known})
        np.testing.assert_allclose(by_hand, some.transform(points), rtol=1e-5, atol=1e-5)


def test_a_gate_that_is_sure_leaves_one_expert() -> None:
    weight, bias = normal(0, 2, 3, 4), normal(1, 2, 3)
    sure = Mixture.of(weight, bias, torch.zeros(2, 4), torch.tensor([-1e3, 1e3]))
    one, points = Affine(weight[1], bias[1]), normal(2, 5, 4)
    torch.testing.assert_close(sure.transform(points), one.transform(points))
    torch.testing.assert_close(sure.over(points).pushforward(points), one.pushforward(points))


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
    with pytest.raises(
        MapError,
        match="only maps of format 1, kind affine or low_rank or network or mixture can be",
    ):
        map_from_bytes(save({"weight": torch.zeros(2, 2)}))


def test_a_map_of_a_later_format_is_refused(tmp_path: Path) -> None:
    tensors = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    weights = save(tensors, {"isthmus": '{"format": 2, "kind": "network"}'})
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    (tmp_path / RECORD_FILE).write_text(json.dumps({"sha256": digest}))
    with pytest.raises(MapError, match="holds format 2, kind network"):
        Map.load_map(tmp_path)
