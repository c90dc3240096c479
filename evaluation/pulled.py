"""The file that MLflow stores beside every tracked map, and runs when the map is loaded.

It stands alone: it is copied into the tracked model, so that loading one needs mlflow, torch and
safetensors, and nothing else of this project.

Legend of shapes: n points or directions, ds width of the source, dt width of the target.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext
from safetensors.torch import load_file

Rows = list[list[float]]


class PulledMap(PythonModel):
    """An affine map from a source's residual stream into a target's, with the vector it carried."""

    def load_context(self, context: PythonModelContext) -> None:
        directory = Path(context.artifacts["cargo"])
        tensors = load_file(directory / "map.safetensors")
        if "left" in tensors:  # a map of low rank, in two factors
            self._weight = tensors["left"] @ tensors["right"]  # [dt, ds]
        else:
            self._weight = tensors["weight"]  # [dt, ds]
        self._bias = tensors["bias"]  # [dt]
        self._vector = load_file(directory / "vector.safetensors")["vector"]  # [dt]
        self._facts: dict[str, Any] = json.loads((directory / "cargo.json").read_text())

    # MLflow allows predict without a context; the type hints of its base class do not say so.
    def predict(self, model_input: Rows) -> Rows:  # pyrefly: ignore[bad-override]
        """Transform points [n, ds], as lists: what an MLflow server is sent, and answers."""
        return self.transform(torch.tensor(model_input)).tolist()

    def transform(self, points: torch.Tensor) -> torch.Tensor:
        """Points [n, ds] of the source as points [n, dt] of the target."""
        return points.to(self._weight.dtype) @ self._weight.T + self._bias

    def pushforward(self, directions: torch.Tensor) -> torch.Tensor:
        """Directions [n, ds] of the source as directions [n, dt]: differences, so no bias."""
        return directions.to(self._weight.dtype) @ self._weight.T

    def vector(self) -> torch.Tensor:
        """The carried vector [dt]: add `strength` times it at the `site` that `facts` names."""
        return self._vector

    def facts(self) -> dict[str, Any]:
        """Where the vector goes (site, strength), what it does, and what was measured of it."""
        return self._facts


mlflow.models.set_model(PulledMap())
