"""How position enters attention, as values: rotary embeddings to take off and put on, and ALiBi.

Shapes: t tokens, h heads, w width of a head, of which r are rotated, q queries, k keys.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864), as one layer applies it.

    Feature i of the first r / 2 turns together with feature i + r / 2, by position *
    `inverse_frequencies`[i] radians; whatever is beyond r stays. That is the layout of Llama and
    GPT-NeoX, not the interleaved one of GPT-J. `attention_scaling` multiplies what is turned (YaRN,
    LongRoPE; 1 otherwise).
    """

    inverse_frequencies: Tensor
    attention_scaling: float = 1.0

    def rotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys [..., t, h, w] as they are computed, to keys at `positions` [t]; same type."""
        return self._turn(keys, positions.float(), self.attention_scaling)

    def unrotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """The inverse of `rotate`: keys [..., t, h, w] from a cache, to keys without a position."""
        return self._turn(keys, -positions.float(), 1.0 / self.attention_scaling)

    def _turn(self, keys: Tensor, positions: Tensor, scaling: float) -> Tensor:
        half = len(self.inverse_frequencies)
        assert keys.shape[-1] >= 2 * half, "more is rotated than a head is wide"
        # In float32, as the models do it: at a far position another precision is another angle.
        frequencies = self.inverse_frequencies.float().to(keys.device)
        angles = positions.to(keys.device)[:, None, None] * frequencies
        cosines, sines = angles.cos() * scaling, angles.sin() * scaling  # [t, 1, r / 2]
        precise = keys.to(torch.promote_types(keys.dtype, torch.float32))
        first, second, rest = precise.tensor_split((half, 2 * half), dim=-1)
        turned = (first * cosines - second * sines, second * cosines + first * sines, rest)
        return torch.cat(turned, dim=-1).to(keys.dtype)


def alibi_slopes(heads: int) -> Tensor:
    """How steeply each head forgets, float32 [h] (Press et al. 2022, arXiv:2108.12409).

    A geometric sequence that ends at 2**-8 for a power of two. Any other number of heads takes that
    of the power of two below, then every second one of the power of two above.
    """
    below = 2 ** math.floor(math.log2(heads))
    slopes = _geometric(below)
    if below < heads:
        slopes = torch.cat([slopes, _geometric(2 * below)[::2][: heads - below]])
    return slopes.float()


def alibi_bias(slopes: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """What is added to the attention scores, [h, q, k]: minus slope times distance.

    `slopes` [h]; `queries` [q] and `keys` [k] are positions. Of keys after their query, which the
    causal mask hides, it says nothing that matters.
    """
    return slopes[:, None, None] * (keys[None, :] - queries[:, None])


def _geometric(heads: int) -> Tensor:
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64))
