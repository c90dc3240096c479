import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.agreement import Agreement, compare
from alignment.contrast import DirectionError
from alignment.directions.difference_of_means import DifferenceOfMeans

Sides = tuple[np.ndarray, np.ndarray]
seeds = given(seed=st.integers(0, 10**6))
quick = settings(max_examples=10)


def group(seed: int, towards: np.ndarray, n: int = 60, scatter: float = 5.0) -> Sides:
    """Pairs that differ by `towards`, with noise of spread 1, about places they share."""
    random = np.random.default_rng(seed)
    places = scatter * random.standard_normal((n, len(towards)))
    noise = np.sqrt(0.5) * random.standard_normal((2, n, len(towards)))
    positive = places + noise[0] + towards / 2
    return positive.astype(np.float32), (places + noise[1] - towards / 2).astype(np.float32)


def planted(cosine: float, width: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.zeros(width), np.zeros(width)
    first[0] = length
    second[:2] = length * cosine, length * np.sqrt(1 - cosine**2)
    return first, second


def few(groups: dict[str, Sides], seed: int = 0) -> Agreement:
    return compare(groups, draws=300, permutations=300, seed=seed)


def three(seed: int) -> dict[str, Sides]:
    first, second = planted(0.5, 12, 2.0)
    return {
        "en": group(seed, first),
        "zh": group(seed + 1, second, 40),
        "de": group(seed + 2, -first),
    }


@quick
@seeds
def test_cosine_is_that_of_the_directions(seed: int) -> None:
    groups = three(seed)
    taken = [DifferenceOfMeans().direction(*sides) for sides in groups.values()]
    units = np.stack([one / np.linalg.norm(one) for one in taken])
    found = few(groups)
    assert found.names == ("en", "zh", "de")
    np.testing.assert_allclose(found.cosine, units @ units.T, atol=1e-6)


def test_debiased_cosine_leaves_out_what_a_pair_has_with_itself() -> None:
    first, second = planted(0.5, 6, 3.0)
    groups = {"a": group(0, first, 5), "b": group(1, second, 5)}
    apart = [positive.astype(np.float64) - negative for positive, negative in groups.values()]
    lengths = [(one @ one.T)[~np.eye(5, dtype=bool)].mean() for one in apart]
    wanted = apart[0].mean(0) @ apart[1].mean(0) / np.sqrt(lengths[0] * lengths[1])
    assert few(groups).debiased[0, 1] == pytest.approx(wanted)


def test_each_group_is_drawn_by_itself() -> None:
    one = group(0, np.full(6, 0.3))
    found = few({"a": one, "b": one})
    assert found.cosine[0, 1] == pytest.approx(1)
    assert found.low[0, 1] < 0.95


@quick
@seeds
def test_matrices_are_symmetric_and_the_interval_holds_the_value(seed: int) -> None:
    found = few(three(seed))
    for matrix in (found.cosine, found.debiased, found.low, found.high, found.p_value):
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert (found.low <= found.debiased + 1e-9).all()
    assert (found.debiased <= found.high + 1e-9).all()
    np.testing.assert_allclose(found.debiased.diagonal(), 1)
    assert (found.p_value.diagonal() == 1).all()


@quick
@seeds
def test_neither_the_order_of_the_groups_nor_the_scale_of_one_matters(seed: int) -> None:
    groups = three(seed)
    found = few(groups)
    positive, negative = groups["zh"]
    turned = few(dict(reversed(groups.items())) | {"zh": (8 * positive, 8 * negative)})
    for name in ("cosine", "debiased", "low", "high", "p_value"):
        matrix = getattr(turned, name)[::-1, ::-1]
        np.testing.assert_allclose(matrix, getattr(found, name), atol=1e-6)


@quick
@seeds
def test_swapping_the_sides_of_a_group_turns_its_cosines_round(seed: int) -> None:
    groups = three(seed)
    found, turned = few(groups), few(groups | {"en": groups["en"][::-1]})
    np.testing.assert_allclose(turned.cosine[0, 1:], -found.cosine[0, 1:], atol=1e-9)
    np.testing.assert_allclose(turned.debiased[0, 1:], -found.debiased[0, 1:], atol=1e-9)
    np.testing.assert_allclose(turned.low[0, 1:], -found.high[0, 1:], atol=1e-9)
    np.testing.assert_allclose(turned.p_value, found.p_value)


def test_the_same_seed_gives_the_same_bits() -> None:
    groups = three(0)
    assert few(groups, 1).low.tobytes() == few(groups, 1).low.tobytes()
    assert few(groups, 1).low.tobytes() != few(groups, 2).low.tobytes()


def test_few_pairs_and_a_large_width_hide_agreement_from_the_plain_cosine_only() -> None:
    first, second = planted(0.9, 400, 3.0)
    tries = [
        few({"a": group(seed, first, 40), "b": group(seed + 1, second, 40)})
        for seed in range(0, 40, 2)
    ]
    assert max(found.cosine[0, 1] for found in tries) < 0.6
    assert np.mean([found.debiased[0, 1] for found in tries]) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("width", "length"), [(10, 2.0), (200, 2.0)])
def test_the_interval_covers_what_was_planted(width: int, length: float) -> None:
    first, second = planted(0.6, width, length)
    covered = 0
    for seed in range(0, 80, 2):
        groups = {"a": group(seed, first), "b": group(seed + 1, second)}
        found = compare(groups, draws=200, permutations=1)
        covered += found.low[0, 1] <= 0.6 <= found.high[0, 1]
    assert covered >= 35  # of 40: fewer comes once in 70 times at a coverage of 95 %


def test_p_values_of_labels_that_mean_nothing_are_not_small() -> None:
    """Even where one massive dimension makes most cosines large."""
    width, small = 20, 0
    for seed in range(0, 120, 3):
        groups = {str(number): group(seed + number, np.zeros(width)) for number in range(3)}
        for positive, _ in groups.values():
            positive[:, 0] += 30 * np.random.default_rng(seed).standard_normal(len(positive))
        found = compare(groups, draws=1, permutations=99)
        small += found.p_value.min() <= 0.05
    assert small <= 6  # of 40


def test_agreement_and_opposition_are_told_from_chance() -> None:
    first, second = planted(0.0, 30, 3.0)
    groups = {"a": group(0, first), "b": group(1, -first), "c": group(2, second)}
    found = few(groups)
    assert found.p_value[0, 1] < 0.01
    assert found.high[0, 1] < -0.8
    assert found.p_value[0, 2] > 0.05
    assert found.null_95 < 0.6


def test_a_group_without_a_direction_says_nothing() -> None:
    first, _ = planted(0.0, 30, 3.0)
    positive, negative = group(1, np.zeros(30), 10)
    both = np.concatenate((positive, negative)), np.concatenate((negative, positive))
    found = few({"a": group(0, first), "b": (both[0] + np.float32(0.01), both[1])})
    assert np.isnan(found.debiased[0, 1])
    assert (found.low[0, 1], found.high[0, 1]) == (-1, 1)
    with pytest.raises(DirectionError, match="group b: the two sides do not differ"):
        few({"a": group(0, first), "b": both})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda sides: (sides[0][:1], sides[1][:1]), "group zh: the positive side needs at least"),
        (lambda sides: (sides[0], sides[1][1:]), "group zh: pairs are needed"),
        (lambda sides: (sides[0], sides[1] * np.inf), "group zh: 40 of 40 points on the negative"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(spoil, message: str) -> None:
    groups = three(0)
    with pytest.raises(DirectionError, match=message):
        compare(groups | {"zh": spoil(groups["zh"])})
    with pytest.raises(DirectionError, match="at least 2 groups, and there are 1"):
        compare({"en": groups["en"]})
