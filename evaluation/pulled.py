"""The file that MLflow stores beside every tracked map, and runs when the map is loaded.

It stands alone: it is copied into the tracked model, so that loading one needs mlflow, torch and
safetensors, and nothing else of this project.

Legend of shapes: n points or directions, ds and dt widths of source and target, e experts.
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
    """A map from a source's residual stream into a target's, with the vector it carried."""

    def load_context(self, context: PythonModelContext) -> None:
        directory = Path(context.artifacts["cargo"])
        tensors = load_file(directory / "map.safetensors")
        if "left" in tensors:  # a map of low rank, in two factors
            tensors["weight"] = tensors["left"] @ tensors["right"]
        self._weight, self._bias = tensors["weight"], tensors["bias"]  # [dt, ds], [dt]
        self._slopes = self._weight  # what a direction is multiplied by, [dt, ds]
        self._network = tensors if "inner" in tensors else None
        if self._network is not None:
            self._slopes = self._weight + tensors["outer"] * tensors["slope"] @ tensors["inner"]
        self._gate = (tensors["gate"], tensors["gate_bias"]) if "gate" in tensors else None
        if self._gate is not None:  # a weight [e, dt, ds] and a bias [e, dt] for each expert
            self._slopes = tensors["slope"]
        self._vector = load_file(directory / "vector.safetensors")["vector"]  # [dt]
        self._facts: dict[str, Any] = json.loads((directory / "cargo.json").read_text())

    # MLflow allows predict without a context; the type hints of its base class do not say so.
    def predict(self, model_input: Rows) -> Rows:  # pyrefly: ignore[bad-override]
        """Transform points [n, ds], as lists: what an MLflow server is sent, and answers."""
        return self.transform(torch.tensor(model_input)).tolist()

    def transform(self, points: torch.Tensor) -> torch.Tensor:
        """Points [n, ds] of the source as points [n, dt] of the target."""
        points = points.to(self._weight.dtype)
        if self._gate is not None:
            gate, gate_bias = self._gate
            shares = (points @ gate.T + gate_bias).softmax(-1)  # [n, e]
            of_each = (self._weight @ points[..., None, :, None])[..., 0] + self._bias
            return (shares[..., None] * of_each).sum(-2)
        answer = points @ self._weight.T + self._bias
        if self._network is None:
            return answer
        inner, inner_bias, outer = (self._network[n] for n in ("inner", "inner_bias", "outer"))
        return answer + torch.nn.functional.gelu(points @ inner.T + inner_bias) @ outer.T

    def pushforward(self, directions: torch.Tensor) -> torch.Tensor:
        """Directions [n, ds] of the source as directions [n, dt]: differences, so no bias.

        Through what bends as the mean of its derivative over the anchors.
        """
        return directions.to(self._weight.dtype) @ self._slopes.T

    def vector(self) -> torch.Tensor:
        """The carried vector [dt]: add `strength` times it at the `site` that `facts` names."""
        return self._vector

    def facts(self) -> dict[str, Any]:
        """Where the vector goes (site, strength), what it does, and what was measured of it."""
        return self._facts


mlflow.models.set_model(PulledMap())
