"""The file that MLflow stores beside every tracked adapter, and runs when it is loaded.

Like `pulled` it stands alone, and needs mlflow, torch and safetensors; PEFT reads the same files.

Legend of shapes: n tokens, i and o what a layer reads and returns, r rank.
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
from safetensors.torch import load_file

# MLflow warns that `predict` has no type hints, and knows none for arrays by name. It sets filters
# of its own, so the warning is caught.
with warnings.catch_warnings(record=True):

    class PulledAdapter(PythonModel):
        """What is added to layers of the target. As it is written, alpha is the rank everywhere, so
        that nothing is scaled."""

        def load_context(self, context: PythonModelContext) -> None:
            self._directory = Path(context.artifacts["cargo"])
            stored = load_file(self._directory / "adapter_model.safetensors")
            layers = sorted({name.rpartition(".lora_")[0] for name in stored})
            self._factors = {
                layer.removeprefix("base_model.model."): (
                    stored[f"{layer}.lora_B.weight"].float(),
                    stored[f"{layer}.lora_A.weight"].float(),
                )
                for layer in layers
            }
            self._facts: dict[str, Any] = json.loads((self._directory / "cargo.json").read_text())

        # MLflow allows predict without a context; its base class does not say so.
        def predict(self, model_input):  # pyrefly: ignore[bad-override]
            """What layers read, arrays [n, i] by layer, as what is added to them, [n, o]."""
            read = {name: torch.tensor(np.asarray(of)) for name, of in model_input.items()}
            return {name: of.numpy() for name, of in self.added(read).items()}

        def added(self, read: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            """Of what layers read, [n, i] by layer, what is added to what they return, [n, o]."""
            found = {}
            for name, points in read.items():
                up, down = self._factors[name]  # [o, r], [r, i]
                found[name] = points.float() @ down.T @ up.T
            return found

        def layers(self) -> dict[str, tuple[int, int]]:
            """How many numbers each layer that is changed returns and reads."""
            return {name: (len(up), down.shape[1]) for name, (up, down) in self._factors.items()}

        def directory(self) -> str:
            """Where the files are, for `peft.PeftModel.from_pretrained`."""
            return str(self._directory)

        def facts(self) -> dict[str, Any]:
            """What was measured of the adapter."""
            return self._facts


mlflow.models.set_model(PulledAdapter())
