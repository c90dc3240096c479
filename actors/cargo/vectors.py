"""Steering vectors as people keep them: by site, with what is known of the model they are for.

Shapes: d width of a site.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from actors.catalog import ModelFacts
from actors.site_names import INJECTED, Site


class VectorError(ValueError):
    """A file of steering vectors that cannot be used; one line says why, and what can be."""


@dataclass(frozen=True, eq=False)
class SteeringVectors:
    """Vectors [d] (float32) by site.

    `model` is what the file calls the model, or its family; `fingerprint` is that of
    `ModelFacts`. `spreads` are by site, where they are known, the length of a typical centred
    activation there: a vector of that length is one unit of strength.

    Raises:
        VectorError: there is no vector, or one is not flat and finite.
        SiteError: a site is not one.
    """

    vectors: Mapping[str, np.ndarray]
    model: str | None = None
    fingerprint: str | None = None
    concept: str | None = None
    spreads: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.vectors:
            raise VectorError("there is no vector in it")
        for site, vector in self.vectors.items():
            Site.parse(site)
            assert vector.dtype == np.float32, f"{site}: vectors are kept in float32"
            if vector.ndim != 1 or not vector.size:
                raise VectorError(f"{site}: the vector must be flat, its shape is {vector.shape}")
            if not np.isfinite(vector).all():
                raise VectorError(f"{site}: the vector has NaN or Inf in it")

    def require_for(self, model: ModelFacts) -> None:
        """Make sure that these can be vectors of this model.

        Raises:
            VectorError: they were made for another revision of it, are of another width, or the
                model has no such site to add one to.
        """
        if self.fingerprint is not None and self.fingerprint != model.fingerprint:
            raise VectorError(
                f"made for another revision of {model.name}: fingerprint {self.fingerprint[:12]}, "
                f"and that of {model.name} here is {model.fingerprint[:12]}"
            )
        for text, vector in self.vectors.items():
            width = _width(Site.parse(text), model)
            if len(vector) != width:
                raise VectorError(
                    f"{text}: the vector has {len(vector)} numbers, {model.name} has {width} there"
                )


def _width(site: Site, model: ModelFacts) -> int:
    if site.layer >= model.layers:
        raise VectorError(f"{site}: {model.name} has layers 0 to {model.layers - 1}")
    if site.kind not in INJECTED:
        raise VectorError(
            f"{site}: nothing can be added to a {site.kind}; allowed: {', '.join(INJECTED)}"
        )
    return model.kv_heads * model.head_width if site.kind in ("keys", "values") else model.width
