"""The compatibility matrix as a value: everything one sweep measured, in JSON and out again.

Legend of shapes: Ls source layers, Lt target layers. Numbers that could not be computed are NaN
here and null in JSON.
"""

from itertools import combinations

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from alignment.layers import Agreement, agreement
from evaluation.retention import Interval, Level, Measured

Grid = tuple[tuple[Measured, ...], ...]  # [Ls][Lt]
CellValue = str | float | None
Key = tuple[str, str, str, str]  # source, target, cargo, concept
Facet = tuple[str, str]  # cargo, concept
CHANCE = 0.05
EQUAL_EFFECT = "carried, equal effect"  # the row of neutral text at the strength that equals native


class MatrixError(ValueError):
    """A matrix that cannot be read, or a cell that it does not have."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Spread(_Value):
    """Effects of many random directions of the carried norm, as shares of the native effect."""

    shares: tuple[Measured, ...]

    @property
    def count(self) -> int:
        return len(self.shares)

    @property
    def largest(self) -> float:
        """The share furthest from zero, without its sign."""
        return max((abs(share) for share in self.shares), default=0.0)


class Control(_Value):
    """Something that should carry nothing: its effect as a share of the native effect."""

    name: str
    retention: Interval
    spread: Spread | None = None


class WayScore(_Value):
    """One way to carry over one pair: R² of its map on held-out rows, and retention of what it
    carries: on dev, by which it is chosen, and on test."""

    name: str
    held_out_r2: Measured
    dev: Measured
    retention: Interval | None


class PlaceScore(_Value):
    """A place that was tried on dev: the effect of the native vector there (nats, at the strength
    that neutral text bears), and the share of it that the best map on held-out rows carries."""

    site: str
    role: str
    strength: Measured
    native: Measured
    retention: Interval | None


class JudgedRow(_Value):
    """What a judge says of generations: how far its score, from -1 to 1, is moved by the native
    vector, the carried one and a control. `error` is how often the judge is wrong."""

    judge: str
    error: Interval
    native: Interval
    carried: Interval
    control: Interval
    retention: Interval | None


class NeutralRow(_Value):
    """The target on neutral text: NLL and KL from the untouched target, both in nats per token."""

    name: str
    nll: Measured
    kl: Measured


class Sample(_Value):
    """A prompt, and what the target writes after it: untouched, steered natively, carried."""

    prompt: str
    base: str
    native: str
    carried: str


class Cell(_Value):
    """One cargo carried from one model into another, judged on test items.

    `way` is the one of `ways` that dev chose. `native_p` is how rarely a vector of the same texts,
    their sides drawn at random, does as much as the native one. `together` is the retention of the
    mean of all sources' vectors, where there are several.
    """

    source: str
    target: str
    cargo: str
    concept: str
    site: str
    role: str
    strength: Measured
    way: str
    level: Level
    retention: Interval | None
    base: Interval
    native: Interval
    carried: Interval
    controls: tuple[Control, ...]
    held_out_r2: Measured
    ways: tuple[WayScore, ...]
    places: tuple[PlaceScore, ...]
    together: Interval | None
    native_p: Measured
    cosine_to_native: Measured
    neutral: tuple[NeutralRow, ...]
    judged: tuple[JudgedRow, ...]
    samples: tuple[Sample, ...]
    seconds: Measured
    map_bytes: int
    map_address: str
    vector_address: str

    @property
    def key(self) -> Key:
        return self.source, self.target, self.cargo, self.concept

    @property
    def is_real(self) -> bool:
        """Whether the native vector does more than chance: its interval leaves out zero, and hardly
        any vector of the same texts with their sides drawn at random does as much."""
        return self.retention is not None and self.native_p <= CHANCE

    @property
    def worst_control(self) -> float | None:
        """The largest control, as a share of native without its sign: means and single draws."""
        shares = [abs(control.retention.value) for control in self.controls]
        return max(shares, default=None)


class LayerSimilarity(_Value):
    """Every layer of one model beside every layer of another, over rows that line up.

    The grids are [Ls][Lt]. `null_95` is the 95 % quantile of the largest standardised CKA over all
    layer pairs when rows are permuted. The coverages are shares of target layers whose best
    standardised CKA is above 0.7, and above `null_95`. `pairing` is the source layer measured as
    the partner of each target layer, never going back.
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
    pairing: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.cka), len(self.cka[0])

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


class GroupAgreement(_Value):
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


class ModelRow(_Value):
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


class AnchorFacts(_Value):
    """The texts that the maps were fitted on."""

    texts: int
    rows: int
    fingerprint: str
    corpora: tuple[str, ...]


class Matrix(_Value):
    """All that one sweep measured. `address` is the content address of the sweep itself."""

    run: str
    address: str
    created: str
    models: tuple[ModelRow, ...]
    similarities: tuple[LayerSimilarity, ...]
    cells: tuple[Cell, ...]
    agreements: tuple[GroupAgreement, ...] = ()
    anchors: AnchorFacts
    lineage: dict[str, str]
    seconds: dict[str, float]

    @model_validator(mode="after")
    def _known_once(self) -> "Matrix":
        names = {model.name for model in self.models}
        for part in (*self.cells, *self.similarities):
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
    def facets(self) -> dict[Facet, tuple[Cell, ...]]:
        """The cells of each cargo and concept, in the order of the cells."""
        facets: dict[Facet, tuple[Cell, ...]] = {}
        for cell in self.cells:
            facet = (cell.cargo, cell.concept)
            facets[facet] = (*facets.get(facet, ()), cell)
        return facets

    def cell(self, source: str, target: str, cargo: str, concept: str) -> Cell:
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
        return [_row(cell) for cell in self.cells]

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


def _row(cell: Cell) -> dict[str, CellValue]:
    retention = cell.retention
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
        "site": cell.site,
        "role": cell.role,
        "strength": cell.strength,
        "way": cell.way,
        "held_out_r2": cell.held_out_r2,
        "cosine_to_native": cell.cosine_to_native,
    }
