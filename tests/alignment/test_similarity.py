from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from alignment.similarity import (
    Similarity,
    compare,
    compare_all,
    debiased_cka,
    mutual_knn,
    standardise,
)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def array(tensor: Tensor) -> Any:  # the stubs of scikit-learn do not know NumPy's arrays
    return np.asarray(tensor.numpy(), dtype=np.float64)


def related(seed: int, n: int, dx: int, dy: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    shared = normal(seed, n, 4)
    return (
        shared @ normal(seed + 1, 4, dx) + noise * normal(seed + 2, n, dx),
        shared @ normal(seed + 3, 4, dy) + noise * normal(seed + 4, n, dy),
    )


def song_hsic(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, equation 5, written out with whole Gram matrices in float64."""
    k, gram = (rows.double() @ rows.double().mT for rows in (x, y))
    k.fill_diagonal_(0)
    gram.fill_diagonal_(0)
    n, one = len(x), torch.ones(len(x), dtype=torch.float64)
    product = k @ gram
    value = (
        product.trace()
        + (one @ k @ one) * (one @ gram @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ product @ one)
    )
    return float(value / (n * (n - 3)))


def song_cka(x: Tensor, y: Tensor) -> float:
    return song_hsic(x, y) / np.sqrt(song_hsic(x, x) * song_hsic(y, y))


def sklearn_overlap(x: Tensor, y: Tensor, k: int) -> float:
    near = [
        NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False)
        for z in (array(x), array(y))
    ]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]))


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 60), shift=st.floats(-50, 50))
def test_debiased_cka_is_song_s_estimator(seed: int, n: int, shift: float) -> None:
    x, y = related(seed, n, 6, 9)
    assert debiased_cka(x + shift, y) == pytest.approx(song_cka(x, y), abs=1e-3)


def test_debiased_cka_is_the_same_over_several_blocks() -> None:
    x, y = related(3, 1500, 12, 20)
    assert debiased_cka(x, y) == pytest.approx(song_cka(x, y), abs=1e-5)


def test_debiased_cka_does_not_see_rotation_scale_shift_or_sides() -> None:
    x, y = related(4, 300, 12, 20)
    rotation = torch.linalg.qr(normal(5, 12, 12)).Q
    assert debiased_cka(y, x @ rotation * 1e4 + 3) == pytest.approx(debiased_cka(x, y), abs=1e-4)
    assert debiased_cka(x, x @ rotation) == pytest.approx(1, abs=1e-5)


def test_unrelated_features_have_no_debiased_cka_however_wide() -> None:
    assert abs(debiased_cka(normal(0, 200, 800), normal(1, 200, 800))) < 0.03


def test_standardise_is_that_of_scikit_learn() -> None:
    x = normal(0, 50, 6) * torch.tensor([1e-3, 1, 5, 1e3, 1, 1]) + torch.arange(6) * 7
    x[:, 5] = 0.1
    expected = StandardScaler().fit(array(x)).transform(array(x))
    np.testing.assert_allclose(array(standardise(x))[:, :5], expected[:, :5], atol=1e-4)
    assert (standardise(x)[:, 5] == 0).all()


@pytest.mark.parametrize("n", [40, 1500])
def test_mutual_knn_is_that_of_scikit_learn(n: int) -> None:
    x, y = related(6, n, 12, 20, noise=0.3)
    assert mutual_knn(x + 0.5, y, k=7) == pytest.approx(sklearn_overlap(x + 0.5, y, 7), abs=1e-3)


def test_mutual_knn_of_a_model_with_itself_is_whole() -> None:
    x = normal(7, 30, 5)
    assert mutual_knn(x, x * 3) == pytest.approx(1)
    assert mutual_knn(x[:11], normal(8, 11, 5)) == pytest.approx(1)  # everyone is a neighbour


def test_compare_is_each_measure_on_each_pair() -> None:
    x, y = related(8, 800, 12, 20)
    source, target = [x, normal(9, 800, 6)], [y, x * 2 + 1, normal(10, 800, 7)]
    found = compare(source, target, k=5, permutations=20)
    for s, left in enumerate(source):
        for t, right in enumerate(target):
            whitened = standardise(left), standardise(right)
            assert float(found.cka_raw[s, t]) == pytest.approx(song_cka(left, right), abs=1e-4)
            assert float(found.cka[s, t]) == pytest.approx(song_cka(*whitened), abs=1e-4)
            overlap = sklearn_overlap(*whitened, k=5)
            assert float(found.mutual_knn[s, t]) == pytest.approx(overlap, abs=2e-3)
    assert found.rows == 800
    assert float(found.p_value[0, 1]) == pytest.approx(1 / 21)
    assert float(found.p_value[1, 2]) > 1 / 21
    assert found.null_95 < float(found.cka[0, 0])


def test_several_models_at_once_are_each_pair_alone_to_the_bit() -> None:
    models = [[normal(10 * number + layer, 900, 5) for layer in range(2)] for number in range(3)]
    pairs = [(0, 1), (2, 1), (0, 2)]
    found = compare_all(models, pairs, permutations=20, seed=4)
    for (one, other), each in zip(pairs, found, strict=True):
        alone = compare(models[one], models[other], permutations=20, seed=4)
        assert each.to_bytes() == alone.to_bytes()


def test_the_null_is_the_greatest_cka_of_permuted_rows() -> None:
    n, permutations, seed = 40, 30, 3
    source = [normal(s, n, 5) for s in (0, 1)]
    target = [normal(2, n, 6), source[0] @ normal(3, 5, 4) + 2.5 * normal(4, n, 4)]
    found = compare(source, target, permutations=permutations, seed=seed)
    generator = np.random.default_rng(seed)
    generator.permutation(n)  # draws the rows: all of them here, put back in order
    null = []
    for _ in range(permutations):
        order = torch.from_numpy(generator.permutation(n))
        views = [standardise(y)[order] for y in target]
        null.append(max(song_cka(standardise(x), y) for x in source for y in views))
    expected = (1 + (np.array(null)[:, None, None] >= found.cka.numpy()).sum(0)) / 31
    np.testing.assert_allclose(found.p_value, expected)
    assert found.null_95 == pytest.approx(float(np.quantile(null, 0.95)), abs=1e-5)


def test_p_values_of_unrelated_models_are_not_small_too_often() -> None:
    smallest = [
        float(compare([normal(s, 50, 4)], [normal(s + 1000, 50, 4)], permutations=19).p_value)
        for s in range(100)
    ]
    assert 0 <= np.mean(np.array(smallest) <= 0.1) <= 0.2


def test_one_massive_feature_hides_the_rest_from_the_raw_measure_only() -> None:
    x, y = related(11, 400, 12, 20, noise=0.3)
    x[:, 0] = 1e4 * normal(12, 400)
    found = compare([x], [y], permutations=20)
    assert abs(float(found.cka_raw)) < 0.05
    assert float(found.cka) > 0.5


def test_a_layer_that_does_not_vary_has_no_similarity() -> None:
    found = compare([torch.full((40, 5), 0.1)], [normal(0, 40, 5)], permutations=20)
    assert float(found.cka_raw) == float(found.cka) == 0
    assert float(found.p_value) == 1


def test_the_seed_decides_and_the_bytes_go_round() -> None:
    x, y = related(13, 500, 5, 6)
    one, again = (compare([x], [y], permutations=20, seed=1) for _ in range(2))
    assert one.to_bytes() == again.to_bytes()
    assert compare([x], [y], permutations=20, seed=2).null_95 != one.null_95
    back = Similarity.from_bytes(one.to_bytes())
    assert back.to_bytes() == one.to_bytes()
    assert (back.rows, back.null_95) == (500, one.null_95)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="10 rows are too few to compare: need at least 11"):
        compare([normal(0, 10, 3)], [normal(1, 10, 3)])
