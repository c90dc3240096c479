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
            # What reads all layers, if anything does, then each site that is read from one.
            near = record["near"]
            every = [("", record)] if record["writes"] else []
            self._pieces = [
                self._piece(tensors, at, of)
                for at, of in (*every, *((f"near.{site}.", near[site]) for site in near))
            ]
            self._facts: dict[str, Any] = json.loads((directory / "cargo.json").read_text())

        def _piece(
            self, tensors: Mapping[str, torch.Tensor], at: str, record: Mapping[str, Any]
        ) -> dict[str, Any]:
            # One matrix, or the two of a map of low rank.
            factors = ("weight", "right", "left")
            places = [f"{at}map.{name}" for name in factors]
            return {
                "reductions": {  # [d], [d] and [c, d] or none
                    name: (
                        tensors[f"{at}mean.{name}"],
                        tensors[f"{at}scale.{name}"],
                        tensors.get(f"{at}basis.{name}"),
                    )
                    for name in record["reads"]
                },
                "factors": [tensors[place] for place in places if place in tensors],
                "bias": tensors[f"{at}map.bias"],
                "writes": dict(record["writes"]),
            }

        # MLflow allows predict without a context; its base class does not say so.
        def predict(self, model_input):  # pyrefly: ignore[bad-override]
            """Arrays [n, d] by the name of the input, as arrays [n, d] by the target's site."""
            inputs = {name: torch.tensor(np.asarray(of)) for name, of in model_input.items()}
            return {site: cells.numpy() for site, cells in self.transform(inputs).items()}

        def transform(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            """Inputs [n, d] by name as the target's cells [n, d] by site."""
            found: dict[str, torch.Tensor] = {}
            for piece in self._pieces:
                parts = []
                for name, (mean, scale, basis) in piece["reductions"].items():
                    near = (inputs[name].float() - mean) * scale
                    parts.append(near if basis is None else near @ basis.T)
                points = torch.cat(parts, dim=-1)
                for factor in piece["factors"]:
                    points = points @ factor.T
                cells = (points + piece["bias"]).split(list(piece["writes"].values()), dim=-1)
                found |= dict(zip(piece["writes"], cells, strict=True))
            return found

        def reads(self) -> dict[str, int]:
            """The width of every input: the source's sites, and what the target knows of it."""
            return {
                name: len(mean)
                for piece in self._pieces
                for name, (mean, *_) in piece["reductions"].items()
            }

        def facts(self) -> dict[str, Any]:
            """What was measured of the map."""
            return self._facts


mlflow.models.set_model(PulledCacheMap())
