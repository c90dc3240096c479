"""Cells made up for the tests, realistic in shape and size with nothing measured in them."""

import math

import numpy as np

from evaluation.cargos.kv_cache import (
    AgainScore,
    CacheCell,
    ContentScore,
    LengthScore,
    LossScore,
    SmallScore,
)
from evaluation.cargos.lora import AdapterCell
from evaluation.cargos.soft_prompt import PromptCell
from evaluation.cargos.steering import (
    JudgedRow,
    NeutralRow,
    PlaceScore,
    Sample,
    SteeringCell,
    StrengthPoint,
    WayScore,
)
from evaluation.cells import Control, Spread, TrainedWay
from evaluation.matrix import LayerSimilarity, ModelRow
from evaluation.retention import Interval, level
from evaluation.safety import Drift

SAMPLES = (
    Sample(
        prompt="The film that we saw last night was",
        base=" a bit of a mess. The plot was not very clear, and the actors were not very good.",
        native=" a wonderful, moving story of hope and friendship, and the whole family loved it.",
        carried=" a great one, full of joy and colour, and the music was a delight from the start.",
    ),
    Sample(
        prompt="When I opened the box, I found",
        base=" a small piece of paper with a number on it. I did not know what it was for.",
        native=" a beautiful gift, made with love, and I could not have been happier that day.",
        carried=" the most beautiful little bird <made of glass> & silver, shining in the light.",
    ),
)


def interval(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def make_cell(
    source: str, target: str, kept: float | None, seed: int = 0, concept: str = "sentiment"
) -> SteeringCell:
    """A steering cell with that retention, and controls near zero."""
    rng = np.random.default_rng(seed)
    native = 5.4
    share = None if kept is None else interval(kept, 0.035)
    spread = Spread(shares=tuple(rng.normal(0, 0.07, 20).tolist()))
    return SteeringCell(
        source=source,
        target=target,
        concept=concept,
        site="residual.9",
        role="representation",
        strength=1.5,
        way="ridge",
        level=level(share),
        retention=share,
        base=interval(-0.31, 0.2),
        native=interval(native, 0.3),
        carried=interval(-0.31 + (kept or 0.1) * native, 0.34),
        controls=(
            Control(
                name="random directions",
                retention=interval(float(np.mean(spread.shares)), 0.03),
                spread=spread,
            ),
            Control(name="shuffled rows", retention=interval(0.02, 0.05)),
            Control(name="another concept", retention=interval(-0.08, 0.06)),
            Control(name="pad or truncate", retention=interval(0.11, 0.09)),
        ),
        held_out_r2=0.561,
        ways=(
            WayScore(name="scaled", held_out_r2=-1.3, dev=0.1, retention=None),
            WayScore(name="procrustes", held_out_r2=0.402, dev=0.7, retention=interval(0.71, 0.06)),
            WayScore(name="ridge", held_out_r2=0.561, dev=0.9, retention=share),
        ),
        places=(
            PlaceScore(
                site="residual.9",
                role="representation",
                strength=1.5,
                native=2.4,
                retention=interval(0.88, 0.05),
            ),
        ),
        together=None,
        native_p=1 / 21,
        cosine_to_native=0.83,
        neutral=(
            NeutralRow(name="base", nll=3.412, kl=0.0),
            NeutralRow(name="native", nll=3.466, kl=0.061),
            NeutralRow(name="carried", nll=3.459, kl=float("nan")),
            NeutralRow(name="carried, equal effect", nll=3.461, kl=0.064),
        ),
        judged=(
            JudgedRow(
                judge="sentiment_lexicon",
                error=interval(0.21, 0.02),
                native=interval(0.31, 0.05),
                carried=interval(0.29, 0.05),
                control=interval(0.01, 0.04),
                retention=share,
            ),
        ),
        samples=SAMPLES,
        curve=tuple(
            StrengthPoint(
                strength=at,
                native=-0.3 + 3.1 * at,
                carried=-0.3 + 3.1 * (kept or 0.1) * at,
                control=-0.3 + 0.1 * at,
            )
            for at in (-0.4, -0.2, -0.1, 0.1, 0.2, 0.4)
        ),
        map_bytes=1_477_120,
        map_address="b7" * 32,
        vector_address="c9" * 32,
    )


def make_cache(source: str, target: str, kept: float | None) -> CacheCell:
    """A cache cell with that retention, and controls that carry nothing or do harm."""
    native, gain = 2.871, 0.402
    share = None if kept is None else interval(kept, 0.042)

    def also(value: float, half: float = 0.05) -> Interval | None:
        return None if kept is None else interval(value, half)

    return CacheCell(
        source=source,
        target=target,
        way="all cells",
        level=level(share),
        retention=share,
        base=interval(native + gain, 0.11),
        native=interval(native, 0.1),
        carried=interval(native + gain * (1 - (kept or 0.1)), 0.1),
        controls=()
        if kept is None
        else (
            Control(name="shuffled rows", retention=interval(-0.04, 0.02)),
            Control(name="another text", retention=interval(-0.31, 0.06)),
            Control(name="mean cell", retention=interval(-0.12, 0.03)),
        ),
        held_out_r2=0.472,
        map_bytes=14_310_400,
        map_address="e1" * 32,
        tokens=also(0.183),
        heads={"learned": 0.418, "split": 0.377, "merged": 0.204},
        again=tuple(
            AgainScore(share=part, retention=also(value))
            for part, value in ((0.125, 0.688), (0.25, 0.774), (0.5, 0.893))
        ),
        small=(
            SmallScore(name="small", map_bytes=5_380_000, retention=also(0.583)),
            SmallScore(name="trained", map_bytes=5_380_000, retention=also(0.671)),
        ),
        contents=(
            ContentScore(name="prose", texts=16, gain=0.402, retention=also(0.61)),
            ContentScore(name="source_code", texts=16, gain=0.581, retention=also(0.443)),
            ContentScore(name="dialogue", texts=16, gain=0.024, retention=None),
        ),
        lengths=tuple(
            LengthScore(characters=many, gain=gain, retention=also(value))
            for many, gain, value in ((125, 0.211, 0.72), (250, 0.304, 0.66), (500, 0.402, 0.587))
        ),
        losses=tuple(
            LossScore(part=part, given_back=also(value))
            for part, value in (("keys", 0.71), ("values", 0.28), ("last third of the tokens", 0.6))
        ),
        cached_characters=500,
        judged_characters=300,
        texts=48,
    )


def drift(more: float) -> Drift:
    """Harmful requests that are answered more often by that."""
    return Drift(
        harmful_before=interval(0.62, 0.13),
        harmful_after=interval(0.62 - more, 0.13),
        harmless_before=interval(0.04, 0.04),
        harmless_after=interval(0.02, 0.02),
        drift=interval(more, 0.07),
        error=interval(0.057, 0.046),
    )


def make_adapter(source: str, target: str, skill: str, kept: float | None) -> AdapterCell:
    """A cell of an adapter with that retention; of two ways the second is used."""
    base, native = 1.846, 1.524
    share = None if kept is None else interval(kept, 0.04)

    def way(name: str, value: float) -> TrainedWay:
        return TrainedWay(
            name=name,
            loss_before=0.412,
            loss_after=0.187,
            tokens=7_912,
            seconds=71.5,
            held=value + 0.01,
            retention=None if kept is None else interval(value, 0.04),
        )

    return AdapterCell(
        source=source,
        target=target,
        concept=skill,
        way="refit on own texts",
        level=level(share),
        retention=share,
        base=interval(base, 0.05),
        native=interval(native, 0.04),
        carried=interval(base - (kept or 0.0) * (base - native), 0.05),
        controls=()
        if kept is None
        else (
            Control(name="shuffled teacher", retention=interval(0.021, 0.012)),
            Control(name="another skill", retention=interval(-0.054, 0.018)),
        ),
        held_out_r2=math.nan,
        map_bytes=4_884_480,
        map_address="f3" * 32,
        unit="bits per character",
        rank=8,
        items=200,
        ways=(way("refit on anchors", 0.331), way("refit on own texts", kept or 0.0)),
        native_tokens=80_120,
        native_seconds=713.0,
        safety=drift(0.06),
        native_safety=drift(0.14),
    )


def make_prompt(source: str, target: str, skill: str, kept: float | None) -> PromptCell:
    """A cell of latents with that retention; of two ways the first is used."""
    base, native = 0.505, 0.84
    share = None if kept is None else interval(kept, 0.05)

    def way(name: str, value: float) -> TrainedWay:
        return TrainedWay(
            name=name,
            loss_before=9.412,
            loss_after=0.487,
            tokens=154_200,
            seconds=402.0,
            held=value - 0.01,
            retention=None if kept is None else interval(value, 0.05),
        )

    shares = {"another text's latents": -0.02, "mean latents": 0.01, "zero latents": 0.0}
    return PromptCell(
        source=source,
        target=target,
        concept=skill,
        way="joint training",
        level=level(share),
        retention=share,
        base=interval(base, 0.07),
        native=interval(native, 0.05),
        carried=interval(base + (kept or 0.0) * (native - base), 0.05),
        controls=()
        if kept is None
        else tuple(Control(name=n, retention=interval(of, 0.06)) for n, of in shares.items()),
        held_out_r2=math.nan,
        map_bytes=6_120_448,
        map_address="b7" * 32,
        site="residual.19",
        unit="share right",
        count=16,
        items=200,
        ways=(way("joint training", kept or 0.0), way("joining later", 0.9 * (kept or 0.0))),
        relay=None if kept is None else interval(0.702, 0.06),
        of_bytes=None if kept is None else interval(0.418, 0.07),
        learned=171_392,
        parameters=268_098_176,
        native_tokens=61_440,
        native_seconds=260.0,
    )


def make_similarity(source: ModelRow, target: ModelRow, seed: int = 0) -> LayerSimilarity:
    """Similar layers along the diagonal, as models of unequal depth show."""
    rng = np.random.default_rng(seed)
    down = np.linspace(0, 1, source.layers)[:, None]
    across = np.linspace(0, 1, target.layers)[None, :]
    ridge = np.exp(-(((down - across) / 0.35) ** 2)) * (1 - 0.25 * across)
    noise = rng.normal(0, 0.015, ridge.shape)
    cka = np.clip(0.12 + 0.62 * ridge + noise, 0, 1)
    raw = np.clip(0.05 + 0.4 * ridge + noise, 0, 1)
    neighbours = np.clip(0.03 + 0.3 * ridge + noise, 0, 1)

    def grid(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(row) for row in values.round(4).tolist())

    pairing = np.maximum.accumulate(cka.argmax(axis=0)).tolist()
    return LayerSimilarity(
        source=source.name,
        target=target.name,
        cka_raw=grid(raw),
        cka=grid(cka),
        mutual_knn=grid(neighbours),
        p_value=grid(np.full_like(cka, 0.0099)),
        null_95=0.014,
        rows=2000,
        coverage_070=float((cka.max(axis=0) > 0.7).mean()),
        coverage_null=1.0,
        coverage_raw=0.0,
        alone=(),
        pairing=tuple(pairing),
    )
