"""Coverage of a target's layers, on similarities that are known."""

import torch

from alignment.coverage import coverage
from alignment.similarity import Similarity


def similarity(cka: list[list[float]], raw: list[list[float]], null: float) -> Similarity:
    grid = torch.tensor(cka, dtype=torch.float64)
    return Similarity(
        torch.tensor(raw, dtype=torch.float64), grid, 0 * grid, 0 * grid, null, rows=100
    )


def test_each_layer_of_the_target_counts_once_by_its_best_partner() -> None:
    found = coverage(
        similarity(
            cka=[[0.9, 0.1, 0.02, 0.72], [0.8, 0.3, 0.01, 0.2]],
            raw=[[0.1, 0.1, 0.1, 0.1], [0.75, 0.1, 0.1, 0.1]],
            null=0.05,
        )
    )
    assert (found.above_null, found.standardised, found.raw) == (0.75, 0.5, 0.25)
    assert found.alone == (2,)


def test_where_none_is_alike_all_are_alone() -> None:
    found = coverage(similarity([[0.01, 0.02]], [[0.9, 0.9]], 0.05))
    assert (found.above_null, found.standardised, found.raw) == (0.0, 0.0, 1.0)
    assert found.alone == (0, 1)
