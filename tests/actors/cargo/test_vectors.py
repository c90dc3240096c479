"""Steering vectors beside the model that they are for."""

from typing import Any

import numpy as np
import pytest

from actors.cargo.vectors import SteeringVectors, VectorError
from actors.catalog import ModelFacts
from actors.site_names import SiteError
from tests.vector_files import LAYERS, WIDTH

MODEL = ModelFacts(
    name="mine",
    family="llama",
    layers=LAYERS,
    width=WIDTH,
    heads=2,
    kv_heads=1,
    head_width=4,
    vocabulary=100,
    parameters=1000,
    fingerprint="ab" * 32,
    dtype="float32",
)


# --- a model that they are for


def test_vectors_for_another_model_are_refused() -> None:
    row = np.ones(WIDTH, np.float32)

    def refused(vectors: dict[str, np.ndarray], model: ModelFacts = MODEL, **known: Any) -> str:
        with pytest.raises(VectorError) as told:
            SteeringVectors(vectors, **known).require_for(model)
        return str(told.value)

    SteeringVectors({"residual.11": row, "mlp.0": row}, fingerprint="ab" * 32).require_for(MODEL)
    SteeringVectors({"keys.2": row[:4]}).require_for(MODEL)
    assert refused({"residual.3": row[1:]}) == (
        "residual.3: the vector has 4 numbers, mine has 5 there"
    )
    assert refused({"values.3": row}) == "values.3: the vector has 5 numbers, mine has 4 there"
    assert refused({"residual.12": row}) == "residual.12: mine has layers 0 to 11"
    assert refused({"residual.3": row}, fingerprint="cd" * 32) == (
        "made for another revision of mine: fingerprint cdcdcdcdcdcd, and that of mine here is "
        "abababababab"
    )
    allowed = "allowed: keys, values, attention, mlp, residual"
    told = refused({"router.3": row})
    assert told == f"router.3: nothing can be added to a router; {allowed}"
    with pytest.raises(SiteError, match=r"write KIND\.LAYER"):
        SteeringVectors({"nowhere.3": row})
    with pytest.raises(VectorError, match="must be flat"):
        SteeringVectors({"residual.3": row[None]})
