"""An MLflow store in a directory of its own, and files to track in it."""

import shutil
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.torch import save_file

from alignment.latents import Latents, LatentShape, Spread
from alignment.maps import Affine
from evaluation.cells import Key
from evaluation.matrix import Matrix
from evaluation.tracking import CHAMPION, TrackedRun, track
from tests.adapter_files import save_adapter
from tests.cache_files import cache_map

WIDTH, TARGET_WIDTH = 5, 7
NAME = "smollm2-135m--gemma-3-270m--steering--sentiment"
KEY = ("smollm2-135m", "gemma-3-270m", "steering", "sentiment")


def save_latents(directory: Path, target: str) -> Latents:
    """Latents of rows that are WIDTH wide, for one target."""
    made = Latents(LatentShape(WIDTH, 3, 8, 1, 2), Spread.of(torch.randn(9, WIDTH)))
    made.add(target, Spread.of(torch.randn(9, TARGET_WIDTH)))
    with torch.no_grad():
        for each in made.parameters():
            each += 0.1 * torch.randn_like(each)
    directory.mkdir(parents=True)
    (directory / "latents.safetensors").write_bytes(made.to_bytes())
    return made


class Bench:
    """A store in its own directory, and files to track."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = f"sqlite:///{root / 'store' / 'mlflow.db'}"
        self.page = root / "page.html"
        self.page.write_text("<!doctype html><title>page</title>")

    def files(self, matrix: Matrix) -> dict[Key, Path]:
        torch.manual_seed(0)
        maps = {cell.key: self.root / "files" / "--".join(cell.key) for cell in matrix.cells}
        for key, directory in maps.items():
            if not directory.exists() and key[2] == "kv_cache":
                cache_map().save(directory, 16)
            elif not directory.exists() and key[2] == "lora":
                save_adapter(directory)
            elif not directory.exists() and key[2] == "soft_prompt":
                save_latents(directory, key[1])
            elif not directory.exists():
                Affine(torch.randn(TARGET_WIDTH, WIDTH), torch.randn(TARGET_WIDTH)).save(directory)
                save_file({"vector": torch.randn(TARGET_WIDTH)}, directory / "vector.safetensors")
        return maps

    def track(self, matrix: Matrix, experiment: str = "demo") -> TrackedRun:
        maps = self.files(matrix)
        routed = {route.key: maps[route.key] for route in matrix.routes}
        return track(
            matrix,
            uri=self.uri,
            experiment=experiment,
            maps=maps,
            routed=routed,
            page=self.page,
        )

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def runs(self, tracked: TrackedRun) -> list[Run]:
        return list(self.client().search_runs([tracked.experiment_id]))

    def champion(self) -> str:
        return str(self.client().get_registered_model(NAME).aliases[CHAMPION])


def with_store(root: Path, migrated: Path) -> Bench:
    """A copy of a database that is there."""
    (root / "store").mkdir()
    shutil.copy(migrated, root / "store" / "mlflow.db")
    return Bench(root)
