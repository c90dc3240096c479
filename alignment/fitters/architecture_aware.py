"""A map put together from what is known of the two models.

Shapes: ds source width, dt target width, c candidates; of a cache k KV heads of width w.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from alignment.anatomy import CACHE, STREAM, Anatomy
from alignment.fitted import MomentFitter, squared_error, through_means
from alignment.fitters.procrustes import scaled_rotation
from alignment.fitters.residual import Residual
from alignment.maps import Affine
from alignment.moments import Moments
from alignment.spectrum import Spectrum, column, covariances

NEAR = 0.2  # widths that differ by less, as a share of the larger, may be turned into each other
GATED = {"swiglu", "geglu"}


@dataclass(frozen=True)
class ArchitectureAware(MomentFitter):
    """One linear map, of parts that the two anatomies call for.

    - Norms (sites of the residual stream): a source under LayerNorm loses the mean across its
      features, which none of its layers can see; where the norms differ in kind, the features of
      both sides are brought to unit variance, and the target's back again.
    - Heads (keys and values): the base is the source's KV heads regrouped to the number of the
      target's, each turned and scaled into its place.
    - Widths (other sites): the base is that of `residual` where they are near, else zero.
    - Ridge regression shrunk towards the base, whatever that is; λ chosen on held-out folds.
    - Activations: between SwiGLU and GeGLU, a least-squares gain for each target feature.

    Without anatomies only widths are looked at. That a model is sparse or up-scaled is recorded.
    """

    chooses: ClassVar[tuple[str, ...]] = ("lambda",)

    source: Anatomy | None = None
    target: Anatomy | None = None
    lambdas: tuple[float, ...] = Residual.lambdas

    @classmethod
    def between(cls, source: Anatomy, target: Anatomy) -> Self:
        return cls(source, target)

    def solve(self, training: Moments, *chosen: float) -> Affine:
        return self._maps(training, chosen)[0]

    def squared_errors(self, training: Moments, held: Moments) -> Tensor:
        maps = self._maps(training, self.lambdas)
        return torch.tensor([squared_error(each, held) for each in maps], dtype=torch.float64)

    def _maps(self, training: Moments, lambdas: tuple[float, ...]) -> list[Affine]:
        before, after = self._norms(training)
        seen = training.through(before, torch.diag(1 / after))
        base = self._base(seen)
        spectrum = Spectrum(seen.less(base))
        maps = []
        for shrink in spectrum.ridge(column(lambdas)):
            weight = base + spectrum.weight(shrink)
            if self._gates_differ:
                weight = gains(seen, weight)[:, None] * weight
            maps.append(through_means(after[:, None] * weight @ before, training))
        return maps

    def _norms(self, training: Moments) -> tuple[Tensor, Tensor]:
        """What source features are multiplied with [ds, ds], and the target's unit [dt]."""
        ds, dt = training.xy.shape
        before = torch.eye(ds, dtype=torch.float64)
        after = torch.ones(dt, dtype=torch.float64)
        if self.source is None or self.target is None or self.source.site not in STREAM:
            return before, after
        if self.source.norm == "layer":
            before = centring(ds)
        if self.source.norm != self.target.norm:
            before = before / spreads(training.through(before, torch.diag(after)))[:, None]
            after = spreads(training.swap())
        return before, after

    def _base(self, seen: Moments) -> Tensor:
        """What ridge regression is shrunk towards [dt, ds]."""
        source, target = self.source, self.target
        if source is not None and target is not None and {source.site, target.site} <= set(CACHE):
            shapes = ((each.kv_heads, each.head_width) for each in (source, target))
            return heads(seen, *shapes)
        ds, dt = seen.xy.shape
        if abs(ds - dt) < NEAR * max(ds, dt):
            return scaled_rotation(seen)
        return torch.zeros(dt, ds, dtype=torch.float64)

    @property
    def _gates_differ(self) -> bool:
        if self.source is None or self.target is None:
            return False
        return {self.source.activation, self.target.activation} == GATED


def centring(width: int) -> Tensor:
    """The projection [ds, ds] that takes the mean across features from each, as LayerNorm does."""
    return torch.eye(width, dtype=torch.float64) - 1 / width


def spreads(moments: Moments) -> Tensor:
    """Standard deviations of the source features [ds]; 1 for those that do not vary."""
    variances = covariances(moments)[0].diagonal()
    return torch.where(variances > 0, variances, 1.0).sqrt()


def heads(moments: Moments, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Source heads to target heads [dt, ds], for (k, w) of both sides.

    Head j of the target gets the mean of the source heads over the same share of all heads, which
    for fewer heads is the pooling of grouped-query attention (Ainslie et al. 2023) and for more a
    repetition, turned and scaled as `procrustes` has it.
    """
    (ks, ws), (kt, wt) = source, target
    assert moments.xy.shape == (ks * ws, kt * wt), f"{moments.xy.shape} is not {source}, {target}"
    eye = torch.eye(ws, dtype=torch.float64)
    pooled = torch.kron(overlaps(ks, kt), eye)  # [kt * ws, ds]
    seen = moments.through(pooled, torch.eye(kt * wt, dtype=torch.float64))
    turned = [
        scaled_rotation(seen.of_features(slice(j * ws, (j + 1) * ws), slice(j * wt, (j + 1) * wt)))
        for j in range(kt)
    ]
    return torch.block_diag(*turned) @ pooled


def overlaps(source: int, target: int) -> Tensor:
    """How much of each of `source` equal pieces lies in each of `target` [target, source].

    Rows sum to 1.
    """
    starts = [torch.arange(pieces, dtype=torch.float64) / pieces for pieces in (target, source)]
    (begin, start), ends = starts, (1 / target, 1 / source)
    last = torch.minimum((begin + ends[0])[:, None], start + ends[1])
    shared = (last - torch.maximum(begin[:, None], start)).clamp_min(0)
    shared = torch.where(shared > 1e-12, shared, 0.0)
    return shared / shared.sum(1, keepdim=True)


def gains(moments: Moments, weight: Tensor) -> Tensor:
    """For each target feature what its prediction by weight [dt, ds] is best multiplied by [dt]."""
    cov_x, cov_xy = covariances(moments)
    explained = (weight @ cov_x * weight).sum(1)
    crossed = (weight * cov_xy.mT).sum(1)
    return torch.where(explained > 0, crossed / explained.clamp_min(torch.finfo().tiny), 1.0)
