"""Ways through other models, whatever goes along them: which there are, and what came of one.

Shapes: p items.
"""

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from alignment.routes import Hops, Path, best_path, hub
from evaluation.cells import Key
from jobs.config import RunFile

Saving = Callable[[pathlib.Path], pathlib.Path]  # fills a new directory
BEST, HUB, CHANCE = "best path", "through the shared hub", "through a middle drawn by chance"


@dataclass(frozen=True, eq=False)
class Routed:
    """A path for an ordered pair, and effects [p] on the same test items: native, of what goes
    directly, and by name of what goes through others, BEST first. `draws` is how many resamples of
    the items intervals are found by. `save` fills a directory with what the path has made, to be
    registered; None where that is nothing which one file can hold."""

    key: Key
    path: Path
    native: np.ndarray
    direct: np.ndarray
    effects: Mapping[str, np.ndarray]
    draws: int
    save: Saving | None


class Paths:
    """Ways between the models of a run, by what every hop keeps on dev."""

    def __init__(self, run: RunFile, kept: Hops) -> None:
        assert run.routes is not None, "a run that looks for routes"
        self._kept, self._most, self._seed = kept, run.routes.hops, run.seed
        self._names = [spec.name for spec in run.models]
        self._hub = hub(kept)

    def best(self, source: str, target: str) -> Path | None:
        """The one whose hops keep most; None where nothing is kept on any."""
        return best_path(self._kept, source, target, self._most)

    def others(self, source: str, target: str) -> dict[str, tuple[str, ...]]:
        """Those through one other model: a hub for all, and one drawn by chance."""
        middles = {HUB: self._hub, CHANCE: self._drawn(source, target)}
        return {
            name: (source, middle, target)
            for name, middle in middles.items()
            if middle not in (source, target)
        }

    def _drawn(self, source: str, target: str) -> str:
        """A model that is neither end, the same one whenever this is asked."""
        others = [name for name in self._names if name not in (source, target)]
        ends = [self._names.index(source), self._names.index(target)]
        return str(np.random.default_rng([self._seed, *ends]).choice(others))
