"""What was known beforehand, held against what was kept: by SciPy, and by what is planted."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from evaluation.matrix import Matrix, PriorScore
from evaluation.predictors import ABOVE_CHANCE, ALIKE, FIT, PRIOR, Point, predictor, predictors

NAMES = ("a", "b", "c", "d", "e")


def points(retention: np.ndarray, known: np.ndarray, names: tuple[str, ...] = NAMES) -> list[Point]:
    pairs = [*permutations(names, 2)]
    both = zip(pairs, known, retention, strict=False)
    return [Point(*pair, {"known": float(x)}, float(y)) for pair, x, y in both]


@given(st.integers(0, 10**6))
def test_the_rank_correlation_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 20).astype(float), rng.normal(size=20)
    found = predictor("known", points(y, x), draws=20)
    if np.ptp(x) == 0:
        assert found.spearman is None
    else:
        assert found.spearman is not None
        assert found.spearman.value == pytest.approx(spearmanr(x, y).statistic)
        assert -1 <= found.spearman.low <= found.spearman.high <= 1


def test_what_tells_everything_predicts_models_it_has_not_seen() -> None:
    x = np.linspace(0, 1, 20)
    exact = predictor("known", points(0.2 + 0.6 * x, x))
    assert exact.spearman is not None
    assert exact.spearman.low == pytest.approx(1)
    assert exact.error == pytest.approx(0, abs=1e-12)
    assert exact.naive is not None
    assert exact.naive > 0.1
    told = predictor("known", points(np.random.default_rng(0).normal(size=20), x))
    assert told.spearman is not None
    assert told.spearman.includes(0)
    assert told.error is not None
    assert told.naive is not None
    assert told.error > 0.9 * told.naive


def test_pairs_of_one_model_do_not_count_as_many() -> None:
    # All that varies is one model: as a target it gets little, and little was foretold.
    pairs = [*permutations(NAMES, 2)]
    low = np.array([target == "a" for _, target in pairs])
    rng = np.random.default_rng(1)
    x, y = 1.0 - low, 1.0 - low + rng.normal(0, 0.3, len(pairs))
    found = predictor("known", points(y, x)).spearman
    assert found is not None
    assert found.value > 0.5
    assert found.low < 0.2, "without that model there is nothing left"


def test_too_few_models_are_not_calibrated() -> None:
    found = predictor("known", points(np.arange(6.0), np.arange(6.0), ("a", "b", "c")))
    assert found.error is None
    assert found.naive is None


def test_what_a_matrix_knows_of_its_pairs(made_up: Callable[..., Matrix]) -> None:
    matrix = made_up(4)
    scores = tuple(
        PriorScore(source=cell.source, target=cell.target, score=0.5 + 0.03 * number)
        for number, cell in enumerate(matrix.cells)
    )
    of = predictors(matrix.model_copy(update={"priors": scores}))
    assert [*of] == ["steering"]
    assert {each.name for each in of["steering"]} >= {PRIOR, ALIKE, ABOVE_CHANCE, FIT}
    kept = [cell for cell in matrix.cells if cell.retention is not None]
    assert {each.pairs for each in of["steering"]} == {len(kept)}
    assert PRIOR not in {each.name for each in predictors(matrix)["steering"]}
    assert predictors(made_up(2)) == {}, "two pairs have no order to speak of"
