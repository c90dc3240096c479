"""The compatibility matrix as a value: everything one sweep measured, in JSON and out again.

Legend of shapes: Ls source layers, Lt target layers. Numbers that could not be computed are NaN
here and null in JSON.
"""

from itertools import combinations
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError, model_validator

from alignment.layers import Agreement, agreement
from evaluation.cargos import AnyCell
from evaluation.cargos.lora import AdapterCell
from evaluation.cargos.steering import SteeringCell
from evaluation.cells import Value
from evaluation.retention import Measured
from evaluation.routes import Route

Grid = tuple[tuple[Measured, ...], ...]  # [Ls][Lt]
CellValue = str | float | None
Facet = tuple[str, str]  # cargo, concept


class MatrixError(ValueError):
    """A matrix that cannot be read, or a cell that it does not have."""


class LayerSimilarity(Value):
    """Every layer of one model beside every layer of another, over rows that line up.

    The grids are [Ls][Lt]. `null_95` is the 95 % quantile of the largest standardised CKA over all
    layer pairs when rows are permuted. The coverages are shares of target layers whose best
    standardised CKA is above 0.7, and above `null_95`, and whose best raw CKA is above 0.7; `alone`
    are those without a partner above `null_95`. `pairing` is the source layer measured as the
    partner of each target layer, never going back.
    """

    source: str
    target: str
    cka_raw: Grid
    cka: Grid
    mutual_knn: Grid
    p_value: Grid
    null_95: Measured
    rows: int
    coverage_070: Measured
    coverage_null: Measured
    coverage_raw: Measured
    alone: tuple[int, ...]
    pairing: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.cka), len(self.cka[0])

    @property
    def alikeness(self) -> float:
        """The standardised CKA of a target layer with its best partner, on average."""
        return float(np.asarray(self.cka).max(axis=0).mean())

    @property
    def depth_agreement(self) -> Agreement:
        """How far the measured pairing is from the one by depth."""
        return agreement(self.pairing, self.shape[0])

    @model_validator(mode="after")
    def _one_shape(self) -> "LayerSimilarity":
        grids = (self.cka_raw, self.cka, self.mutual_knn, self.p_value)
        sizes = {(len(grid), len(row)) for grid in grids for row in grid}
        if len(sizes) != 1:
            raise ValueError(
                f"the grids of {self.source} and {self.target} differ in shape: {sizes}"
            )
        layers, target_layers = self.shape
        if len(self.pairing) != target_layers or not all(0 <= s < layers for s in self.pairing):
            raise ValueError(
                f"the pairing must name one of {layers} source layers per target layer"
            )
        return self


class GroupAgreement(Value):
    """How far the directions of a concept's groups (domains, languages) agree in one model.

    The grids are [k][k] over the k groups in the order of `names`; `alignment.agreement.compare`
    says what they hold.
    """

    concept: str
    model: str
    site: str
    names: tuple[str, ...]
    cosine: Grid
    debiased: Grid
    low: Grid
    high: Grid
    null_95: Measured

    @property
    def furthest(self) -> tuple[int, int]:
        """The places of the two groups whose directions have the least cosine."""
        pairs = combinations(range(len(self.names)), 2)
        return min(pairs, key=lambda pair: self.cosine[pair[0]][pair[1]])

    @property
    def least(self) -> float:
        """The least cosine of the directions of two groups, as measured."""
        one, other = self.furthest
        return self.cosine[one][other]

    @model_validator(mode="after")
    def _square(self) -> "GroupAgreement":
        count = len(self.names)
        grids = (self.cosine, self.debiased, self.low, self.high)
        sizes = {len(part) for grid in grids for part in (grid, *grid)}
        if count < 2 or sizes != {count}:
            raise ValueError(f"{self.concept}: {count} groups, and grids of {sorted(sizes)}")
        return self


class ModelRow(Value):
    """What a reader wants to know of a model that took part."""

    name: str
    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    parameters: int
    fingerprint: str


class AnchorFacts(Value):
    """The texts that the maps were fitted on."""

    texts: int
    rows: int
    fingerprint: str
    corpora: tuple[str, ...]


class PriorScore(Value):
    """What architectures alone say of an ordered pair, from 0 to 1: an expectation."""

    source: str
    target: str
    score: float


class Unavailable(Value):
    """A model that nothing of this can reach, and why."""

    name: str
    reason: str


class Matrix(Value):
    """All that one sweep measured. `address` is the content address of the sweep itself."""

    run: str
    address: str
    created: str
    models: tuple[ModelRow, ...]
    similarities: tuple[LayerSimilarity, ...]
    cells: tuple[Annotated[AnyCell, Field(discriminator="cargo")], ...]
    agreements: tuple[GroupAgreement, ...] = ()
    routes: tuple[Route, ...] = ()
    priors: tuple[PriorScore, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()
    anchors: AnchorFacts
    lineage: dict[str, str]
    seconds: dict[str, float]

    @model_validator(mode="after")
    def _known_once(self) -> "Matrix":
        names = {model.name for model in self.models}
        for part in (*self.cells, *self.similarities, *self.routes, *self.priors):
            if missing := {part.source, part.target} - names:
                raise ValueError(f"{sorted(missing)} is not among the models {sorted(names)}")
        if len({cell.key for cell in self.cells}) < len(self.cells):
            raise ValueError("a pair has two cells for the same cargo and concept")
        return self

    @property
    def cargoes(self) -> tuple[str, ...]:
        """The cargoes that were carried, in the order of the cells."""
        return tuple(dict.fromkeys(cell.cargo for cell in self.cells))

    @property
    def steering(self) -> tuple[SteeringCell, ...]:
        """The cells of steering vectors alone."""
        return tuple(cell for cell in self.cells if isinstance(cell, SteeringCell))

    @property
    def adapters(self) -> tuple[AdapterCell, ...]:
        """The cells of adapters alone."""
        return tuple(cell for cell in self.cells if isinstance(cell, AdapterCell))

    @property
    def facets(self) -> dict[Facet, tuple[AnyCell, ...]]:
        """The cells of each cargo and concept, in the order of the cells."""
        facets: dict[Facet, tuple[AnyCell, ...]] = {}
        for cell in self.cells:
            facet = (cell.cargo, cell.concept)
            facets[facet] = (*facets.get(facet, ()), cell)
        return facets

    def cell(self, source: str, target: str, cargo: str, concept: str) -> AnyCell:
        """The cell of a pair, a cargo and a concept.

        Raises:
            MatrixError: it was not measured; the line lists what was.
        """
        for cell in self.cells:
            if cell.key == (source, target, cargo, concept):
                return cell
        known = ", ".join(
            f"{c.source} -> {c.target} ({c.cargo} of {c.concept})" for c in self.cells
        )
        raise MatrixError(
            f"no {cargo} of {concept} from {source} to {target}; measured: {known or 'nothing'}"
        )

    def model(self, name: str) -> ModelRow:
        """The model of that name.

        Raises:
            MatrixError: it took no part; the line lists those that did.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise MatrixError(f"no model {name}; there are {', '.join(m.name for m in self.models)}")

    def table(self) -> list[dict[str, CellValue]]:
        """A flat row per cell, for terminals and data frames. None where undefined."""
        return [_row(cell) | self.known_before(cell) for cell in self.cells]

    def known_before(self, cell: AnyCell) -> dict[str, CellValue]:
        """What was known of a cell before anything was carried: `prior` and `alikeness` of its
        models. None where it was not worked out."""
        pair = cell.source, cell.target
        priors = (each.score for each in self.priors if (each.source, each.target) == pair)
        alike = (each.alikeness for each in self.similarities if (each.source, each.target) == pair)
        return {"prior": next(priors, None), "alikeness": next(alike, None)}

    def to_json(self) -> str:
        """The whole matrix as JSON; the same matrix always gives the same text."""
        return self.model_dump_json(indent=2)

    @staticmethod
    def from_json(text: str | bytes) -> "Matrix":
        """The matrix that `to_json` wrote.

        Raises:
            MatrixError: not a matrix; one line with the first thing that is wrong.
        """
        try:
            return Matrix.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the text"
            raise MatrixError(f"not a compatibility matrix: {place}: {first['msg']}") from None


def _row(cell: AnyCell) -> dict[str, CellValue]:
    retention = cell.retention
    steered = cell if isinstance(cell, SteeringCell) else None
    return {
        "source": cell.source,
        "target": cell.target,
        "cargo": cell.cargo,
        "concept": cell.concept,
        "level": str(cell.level),
        "retention": None if retention is None else retention.value,
        "retention_low": None if retention is None else retention.low,
        "retention_high": None if retention is None else retention.high,
        "worst_control": cell.worst_control,
        "base": cell.base.value,
        "native": cell.native.value,
        "carried": cell.carried.value,
        "site": None if steered is None else steered.site,
        "role": None if steered is None else steered.role,
        "strength": None if steered is None else steered.strength,
        "way": cell.way,
        "held_out_r2": cell.held_out_r2,
        "map_bytes": cell.map_bytes,
        "cosine_to_native": None if steered is None else steered.cosine_to_native,
    }
