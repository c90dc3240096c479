"""Git Re-Basin against orders that are known."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.permutation import Attention, match_heads, match_neurons, rows_of

WIDTH = 24


@given(st.integers(1, 30), st.integers(0, 99), st.sampled_from((0.0, 0.2)))
def test_the_order_of_neurons_is_found_through_noise(n: int, seed: int, noise: float) -> None:
    torch.manual_seed(seed)
    gate, up, down = torch.randn(n, WIDTH), torch.randn(n, WIDTH), torch.randn(WIDTH, n)
    order = torch.randperm(n)
    moved = [each[order] + noise * torch.randn(n, WIDTH) for each in (gate, up)]
    back = down[:, order] + noise * torch.randn(WIDTH, n)
    assert match_neurons((gate, up), moved, (down, back)).equal(order)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_the_order_of_heads_is_found(groups: int, each: int, seed: int) -> None:
    torch.manual_seed(seed)
    w, heads = 5, groups * each
    plain = Attention(
        torch.randn(heads * w, WIDTH),
        torch.randn(groups * w, WIDTH),
        torch.randn(groups * w, WIDTH),
        torch.randn(WIDTH, heads * w),
        w,
    )
    order = torch.randperm(groups)
    within = torch.stack([torch.randperm(each) for _ in range(groups)])
    queries = (order[:, None] * each + within).flatten()
    moved = replace(
        plain,
        queries=plain.queries[rows_of(queries, w)],
        keys=plain.keys[rows_of(order, w)],
        values=plain.values[rows_of(order, w)],
        out=plain.out[:, rows_of(queries, w)],
    )
    found = match_heads(plain, moved)
    assert found.groups.equal(order)
    assert found.queries.equal(queries)
