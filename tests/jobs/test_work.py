"""What a sweep consists of, before anything is read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.catalog import ModelFacts
from cluster.storage import address
from jobs.config import ConfigError, RunFile, read_run_file
from jobs.work import make_work, mapped_sites, read_sites

TEXTS = [f"Text {number} says what it says." for number in range(60)]


def models(*widths: int) -> dict[str, ModelFacts]:
    sizes = {"layers": 3, "heads": 4, "kv_heads": 2, "head_width": 8, "vocabulary": 100}
    return {
        name: ModelFacts(
            name=name,
            family="llama",
            parameters=1000,
            width=width,
            dtype="float32",
            fingerprint=address("no such model", name),
            **sizes,
        )
        for name, width in zip(("one", "two", "three"), widths, strict=False)
    }


@pytest.fixture
def with_fitters(tmp_path: Path, tiny_run: Callable[..., Path]) -> Callable[..., RunFile]:
    def write(*fitters: str) -> RunFile:
        maps = {"roles": ["representation"], "fitters": list(fitters)}
        return read_run_file(tiny_run(tmp_path, maps=maps))

    return write


def test_a_fitter_is_tried_where_it_applies(with_fitters: Callable[..., RunFile]) -> None:
    work = make_work(with_fitters("identity", "ridge"), TEXTS, models(32, 32, 48))
    tried = {(hop.source, hop.target): set(hop.maps) for hop in work.hops}
    assert tried["one", "two"] == tried["two", "one"] == {"identity", "ridge"}
    assert tried["one", "three"] == tried["three", "two"] == {"ridge"}


def test_a_pair_that_no_fitter_is_for_is_named(with_fitters: Callable[..., RunFile]) -> None:
    line = r"^maps.fitters: none of identity goes from one \(width 32\) to three \(width 48\)$"
    with pytest.raises(ConfigError, match=line):
        make_work(with_fitters("identity"), TEXTS, models(32, 32, 48))


def test_routers_are_read_where_a_fitter_looks_at_them(
    with_fitters: Callable[..., RunFile],
) -> None:
    given = models(32, 48)
    given["two"] = given["two"].model_copy(update={"sparse": True})
    plain, routed = with_fitters("ridge"), with_fitters("ridge", "routed")
    assert read_sites(plain, given["two"]) == mapped_sites(plain, given["two"]) == ("residual.1",)
    assert read_sites(routed, given["one"]) == mapped_sites(routed, given["two"])
    assert read_sites(routed, given["two"]) == ("residual.1", "router.1")
    (pair,) = {pair for pair, _ in make_work(routed, TEXTS, given).moments}
    routers = {pair.source: pair.source_router, pair.target: pair.target_router}
    assert routers == {given["one"].fingerprint: None, given["two"].fingerprint: "router.1"}
    # What is read for other fitters is found where it was.
    addresses = [set(make_work(run, TEXTS, given).moments.values()) for run in (plain, routed)]
    assert not addresses[0] & addresses[1]
    dense = models(32, 48)
    plain_work, routed_work = (make_work(run, TEXTS, dense) for run in (plain, routed))
    assert plain_work.moments == routed_work.moments
    assert {tuple(hop.maps) for hop in routed_work.hops} == {("ridge",)}
