"""Matrices made up for the tests, realistic in shape and size with nothing measured in them, and
stores to track them in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.matrix import AnchorFacts, Matrix, ModelRow
from tests.evaluation.made_cells import (
    make_adapter,
    make_cache,
    make_cell,
    make_prompt,
    make_similarity,
)
from tests.tracking_bench import Bench, with_store

# name, family, layers, width, heads, kv_heads, head_width, vocabulary, parameters
MODELS = (
    ("smollm2-135m", "llama", 30, 576, 9, 3, 64, 49_152, 134_515_008),
    ("gemma-3-270m", "gemma3_text", 18, 640, 4, 1, 256, 262_144, 268_098_176),
    ("qwen2-0.5b", "qwen2", 24, 896, 14, 2, 64, 151_936, 494_032_768),
    ("mistral-tiny", "mistral", 16, 512, 8, 8, 64, 32_000, 92_310_016),
)
RETENTIONS = (0.964, 0.912, 0.871, 0.834, 0.645, None, 1.021, 0.93, 0.79, 0.88, 0.96, 0.905)
CACHES = (0.587, 0.41, None, 0.36, 0.82, 0.55, 0.48, 0.62, 0.29, 0.71, 0.44, 0.51)
LATENTS = (0.957, 0.884, None, 0.741, 0.93, 0.512)  # and of latents
ADAPTERS = (0.812, 0.437, None, 0.903, 0.271, 0.655)  # likewise, of adapters


def make_matrix(
    count: int = 2,
    address: str = "a5" * 32,
    first: float | None = 0.964,
    concepts: tuple[str, ...] = ("sentiment",),
    caches: bool = False,
    skills: tuple[str, ...] = (),
    latents: bool = False,
) -> Matrix:
    """A sweep over that many models; `first` is the retention of the first pair. With `caches`,
    these were handed over as well, and adapters of each of the `skills` carried; with `latents`,
    reviews were read by one for another."""
    models = []
    for index, row in enumerate(MODELS[:count]):
        name, family, layers, width, heads, kv_heads, head_width, vocabulary, parameters = row
        models.append(
            ModelRow(
                name=name,
                family=family,
                layers=layers,
                width=width,
                heads=heads,
                kv_heads=kv_heads,
                head_width=head_width,
                vocabulary=vocabulary,
                parameters=parameters,
                fingerprint=f"{index + 1:02x}" * 32,
            )
        )
    pairs = [(source, target) for source in models for target in models if source is not target]
    kept = (first, *RETENTIONS[1:])
    return Matrix(
        run="demo",
        address=address,
        created="2026-11-14T09:30:00+00:00",
        models=tuple(models),
        similarities=tuple(make_similarity(s, t, seed) for seed, (s, t) in enumerate(pairs)),
        cells=tuple(
            make_cell(s.name, t.name, kept[seed], seed, concept)
            for concept in concepts
            for seed, (s, t) in enumerate(pairs)
        )
        + tuple(
            make_cache(s.name, t.name, share)
            for (s, t), share in zip(pairs, CACHES, strict=False)
            if caches
        )
        + tuple(
            make_adapter(s.name, t.name, skill, share)
            for skill in skills
            for (s, t), share in zip(pairs, ADAPTERS, strict=False)
        )
        + tuple(
            make_prompt(s.name, t.name, "sentiment", share)
            for (s, t), share in zip(pairs, LATENTS, strict=False)
            if latents
        ),
        anchors=AnchorFacts(texts=4_120, rows=251_904, fingerprint="d4" * 32, corpora=("lambada",)),
        lineage={"code": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "ray": "2.60.0"},
        seconds={"load": 12.4, "harvest": 201.7, "fit": 33.1, "evaluate": 118.0},
    )


@pytest.fixture
def made_up() -> Callable[..., Matrix]:
    return make_matrix


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database that holds one empty sweep: making one takes seconds, copying it none."""
    bench = Bench(tmp_path_factory.mktemp("new"))
    models = {"models": [], "similarities": [], "cells": [], "run": "empty", "address": "0"}
    facts = {"texts": 0, "rows": 0, "fingerprint": "", "corpora": []}
    rest = {"created": "", "anchors": facts, "lineage": {}, "seconds": {}}
    bench.track(Matrix.model_validate(models | rest), experiment="empty")
    return bench.root / "store" / "mlflow.db"


@pytest.fixture
def bench(tmp_path: Path, migrated: Path) -> Bench:
    return with_store(tmp_path, migrated)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Bench:
    """A store with one sweep in it, for the tests that only look."""
    return with_store(tmp_path_factory.mktemp("shared"), migrated)
