"""What others assert, and a prior calibrated on what was measured, beside retention."""

from collections.abc import Callable
from itertools import permutations

import pytest

from evaluation.assertions import assertions
from evaluation.calibration import calibration
from evaluation.expectation import expected
from evaluation.matrix import Matrix, PriorScore
from evaluation.report import render

Maker = Callable[..., Matrix]


def with_priors(matrix: Matrix, of: Callable[[float], float] = lambda kept: kept) -> Matrix:
    """Priors of every pair, made of what the first cell of the pair keeps."""
    kept = {}
    for cell in matrix.cells:
        kept.setdefault((cell.source, cell.target), cell.retention)
    names = [model.name for model in matrix.models]
    scores = {
        pair: of(share.value) if (share := kept[pair]) else 0.5 for pair in permutations(names, 2)
    }
    found = tuple(PriorScore(source=s, target=t, score=min(1.0, x)) for (s, t), x in scores.items())
    return matrix.model_copy(update={"priors": found})


def test_each_crossing_stands_beside_what_is_asserted_of_its_pair(made_up: Maker) -> None:
    matrix = with_priors(made_up(3, caches=True, latents=True), lambda kept: 0.85)
    found = assertions(matrix)
    assert set(found) == {"steering", "kv_cache"}, "of latents nobody asserts anything"
    assert len(found["steering"]) == sum(c.retention is not None for c in matrix.steering)
    for each in (each for some in found.values() for each in some):
        assert each.prior == 0.85
        inside = each.band.low <= each.retention.value <= each.band.high
        assert inside <= (each.verdict == "within")
    steering = {each.band for each in found["steering"]}
    assert steering == {expected("steering", 0.85, 1)}
    assert {each.verdict for each in found["kv_cache"]} == {"below"}
    page = render(matrix)
    assert "KV cache, beside what others assert of such pairs: of 4 crossings 0 lie within" in page
    assert assertions(made_up(3)) == {}, "without priors"


def test_a_line_through_what_was_measured_says_what_to_expect(made_up: Maker) -> None:
    matrix = with_priors(made_up(4), lambda kept: 0.5 * kept)
    found = calibration([matrix, made_up(2)], "steering")
    assert found is not None
    assert (found.crossings, found.models) == (11, 4), "one pair has no retention"
    assert found.expects(0.4) == pytest.approx(0.8)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.naive > 0.01


def test_what_was_measured_twice_counts_once_as_the_newest_has_it(made_up: Maker) -> None:
    new = with_priors(made_up(4), lambda kept: 0.5 * kept)
    old = with_priors(made_up(4), lambda kept: 1 - kept).model_copy(update={"created": "1999"})
    assert calibration([new, old], "steering") == calibration([new], "steering")


def test_little_is_no_calibration(made_up: Maker) -> None:
    assert calibration([], "steering") is None
    assert calibration([made_up(4)], "steering") is None, "no priors"
    assert calibration([with_priors(made_up(3))], "steering") is None, "no model can be left out"
    assert calibration([with_priors(made_up(4))], "lora") is None
