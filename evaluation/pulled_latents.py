"""The file that MLflow stores beside tracked latents, and runs when they are loaded.

Like `pulled` it stands alone, and needs mlflow, torch and safetensors.

Legend of shapes: t rows of a text, i their width, k latents, d what the target reads of each.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

# MLflow warns that `predict` has no type hints, and knows none for arrays by name. It sets filters
# of its own, so the warning is caught.
with warnings.catch_warnings(record=True):

    class PulledLatents(PythonModel):
        """From what the source holds of a text to what the target reads in its place."""

        def load_context(self, context: PythonModelContext) -> None:
            directory = Path(context.artifacts["cargo"])
            path = directory / "latents.safetensors"
            self._of = load_file(path)
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()["isthmus"])
            shape, (reader,) = record["shape"], record["readers"]
            self._reader = f"readers.{reader}."
            block = nn.TransformerDecoderLayer(
                shape["width"],
                shape["heads"],
                4 * shape["width"],
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            blocks = nn.TransformerDecoder(block, shape["blocks"], nn.LayerNorm(shape["width"]))
            at = "resampler.blocks."
            blocks.load_state_dict(
                {name.removeprefix(at): of for name, of in self._of.items() if name.startswith(at)}
            )
            self._blocks = blocks.eval()
            self._facts: dict[str, Any] = json.loads((directory / "cargo.json").read_text())

        # MLflow allows predict without a context; its base class does not say so.
        def predict(self, model_input):  # pyrefly: ignore[bad-override]
            """What the source holds of texts, arrays [t, i] by name, as arrays [k, d]."""
            return {
                name: self.read(torch.tensor(np.asarray(rows))).numpy()
                for name, rows in model_input.items()
            }

        @torch.inference_mode()
        def read(self, rows: torch.Tensor) -> torch.Tensor:
            """What the target reads, [k, d], of a text of which the source holds [t, i]."""
            of, at = self._of, self._reader
            near = (rows.float() - of["resampler.mean"]) / of["resampler.deviation"]
            near = near @ of["resampler.project.0.weight"].T + of["resampler.project.0.bias"]
            near = self._normed(near, "resampler.project.1.")
            latents = self._blocks(of["resampler.queries"][None], near[None])[0]
            told = latents + of[f"{at}places"] + of[f"{at}length"] * np.log(len(rows))
            return self._normed(
                told @ of[f"{at}project.weight"].T + of[f"{at}project.bias"], f"{at}norm."
            )

        def _normed(self, rows: torch.Tensor, at: str) -> torch.Tensor:
            weight, bias = self._of[f"{at}weight"], self._of[f"{at}bias"]
            return nn.functional.layer_norm(rows, bias.shape, weight, bias)

        def facts(self) -> dict[str, Any]:
            """What was measured of the latents."""
            return self._facts


mlflow.models.set_model(PulledLatents())
