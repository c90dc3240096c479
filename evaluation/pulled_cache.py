"""The file that MLflow stores beside every tracked map of caches, and runs when it is loaded.

Like `pulled` it stands alone, and needs mlflow, torch and safetensors.

Legend of shapes: n tokens, d width of an input or a site, c of an input once it is reduced.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext
from safetensors import safe_open
from safetensors.torch import load_file

# MLflow warns that `predict` has no type hints, and knows none for arrays by name. It sets filters
# of its own, so the warning is caught.
with warnings.catch_warnings(record=True):

    class PulledCacheMap(PythonModel):
        """A map from all that a source caches of a token to all that a target does."""

        def load_context(self, context: PythonModelContext) -> None:
            directory = Path(context.artifacts["cargo"])
            path = directory / "cache_map.safetensors"
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()["isthmus"])
            self._reductions = {
                name: (tensors[f"mean.{name}"], tensors[f"basis.{name}"])  # [d], [c, d] or [d]
                for name in record["reads"]
            }
            # One matrix, or the two of a map of low rank.
            names = ("map.weight", "map.right", "map.left")
            self._factors = [tensors[name] for name in names if name in tensors]
            self._bias = tensors["map.bias"]
            self._writes: dict[str, int] = dict(record["writes"])
            self._facts: dict[str, Any] = json.loads((directory / "cargo.json").read_text())

        # MLflow allows predict without a context; its base class does not say so.
        def predict(self, model_input):  # pyrefly: ignore[bad-override]
            """Arrays [n, d] by the name of the input, as arrays [n, d] by the target's site."""
            inputs = {name: torch.tensor(np.asarray(of)) for name, of in model_input.items()}
            return {site: cells.numpy() for site, cells in self.transform(inputs).items()}

        def transform(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            """Inputs [n, d] by name as the target's cells [n, d] by site."""
            parts = []
            for name, (mean, basis) in self._reductions.items():
                near = inputs[name].float() - mean
                parts.append(near * basis if basis.ndim == 1 else near @ basis.T)
            points = torch.cat(parts, dim=-1)
            for factor in self._factors:
                points = points @ factor.T
            cells = (points + self._bias).split(list(self._writes.values()), dim=-1)
            return dict(zip(self._writes, cells, strict=True))

        def reads(self) -> dict[str, int]:
            """The width of every input: the source's sites, and what the target knows of it."""
            return {name: len(mean) for name, (mean, _) in self._reductions.items()}

        def facts(self) -> dict[str, Any]:
            """What was measured of the map."""
            return self._facts


mlflow.models.set_model(PulledCacheMap())
