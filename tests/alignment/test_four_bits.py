"""Four bits hold a number to a fourteenth of the largest one near it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMap, CacheMoments, Reduction
from alignment.four_bits import GROUP, packed, rounded, units_of, unpacked


@given(st.integers(0, 10**6), st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_what_is_packed_comes_back_near(seed: int, shape: list[int]) -> None:
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 10**-3
    pairs, units = packed(tensor)
    again = unpacked(pairs, units, shape)
    assert again.shape == tensor.shape
    assert len(pairs) == GROUP // 2 * len(units)
    assert torch.equal(rounded(tensor, units_of(tensor)), again)
    groups = torch.nn.functional.pad(tensor.reshape(-1), (0, -tensor.numel() % GROUP))
    errors = torch.nn.functional.pad((again - tensor).reshape(-1), (0, -tensor.numel() % GROUP))
    most = groups.reshape(-1, GROUP).abs().amax(1)
    lost = errors.reshape(-1, GROUP).square().sum(1).sqrt()
    assert (lost <= most * GROUP**0.5 / 13).all()  # as if every number were rounded, none cut off


def test_whole_numbers_and_zeros_are_kept() -> None:
    tensor = torch.arange(-7.0, 8.0).repeat(10)
    assert torch.equal(unpacked(*packed(tensor), tensor.shape), tensor)
    assert not unpacked(*packed(torch.zeros(3, 5)), [3, 5]).any()


def test_a_map_in_four_bits_is_a_quarter_of_one_in_sixteen_and_says_nearly_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 96, generator=draw) * torch.logspace(-3, 3, 96)
    y = x / x.std(0) @ torch.randn(96, 128, generator=draw) * torch.logspace(-2, 2, 128)
    reduced = {"a": Reduction.of(x, 96)}
    sums = CacheMoments.of(reduced["a"](x), y)
    fitted = fit_caches(sums, sums, reduced, {"keys.0": 128})
    for made in (fitted.map, fitted.cut(90)):
        small = made.to_bytes(4)
        assert len(small) < 0.32 * len(made.to_bytes(16))
        again = CacheMap.from_bytes(small).transform({"a": x})["keys.0"]
        exact = made.transform({"a": x})["keys.0"]
        # Each output to about a hundredth of its variance, whatever the scales are.
        lost = (again - exact).square().mean(0) / exact.var(0)
        assert float(lost.max()) < 0.06
