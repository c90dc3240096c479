"""Maps of caches of a run: at which addresses, and between which models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.checkpoints import facts
from jobs.cache_maps import handings, require_together
from jobs.config import ConfigError, read_run_file
from jobs.passages import passages
from jobs.progress import Reporter
from jobs.sections import Caches
from jobs.waves import Crew


def no_gang(name: str) -> Any:
    raise AssertionError(f"{name} is not asked for anything")


def test_models_that_are_never_loaded_together_are_refused() -> None:
    crew = Crew("abc", [("a", "b"), ("c",)], no_gang, {}, Reporter())
    require_together(crew, ("b", "a"))
    with pytest.raises(ConfigError, match="kv_cache: a and c do not fit into the cluster"):
        require_together(crew, ("a", "c"))


def test_an_address_is_of_what_settles_a_map(
    tiny_models: dict[str, Path], caches: dict[str, Any]
) -> None:
    models = {name: facts(at, name) for name, at in tiny_models.items()}

    def places(**more: Any) -> list[dict[str, str]]:
        section = Caches.model_validate(caches | more)
        return [dict(each.maps) for each in handings(section, passages(section, 0), models)]

    found = places()
    assert len(found) == 6
    assert len({to for maps in found for to in maps.values()}) == 6 * 5
    # What maps are judged on does not settle them.
    assert places(again=[0.5], bootstrap_draws=300) == found
    for other in ({"components": 8}, {"texts": 15}, {"held": 3}):
        assert not {to for maps in places(**other) for to in maps.values()} & {
            to for maps in found for to in maps.values()
        }

    # How small a map is to be settles that one, and what is trained of it.
    for mine, other in zip(found, places(small=0.8), strict=True):
        assert {name for name in mine if mine[name] != other[name]} == {"small", "trained"}
    assert all(len(maps) == 3 for maps in places(small=None, trained=False))


def test_what_is_trained_is_the_small_map(caches: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="trained: the small map is trained; say how small it is"):
        Caches.model_validate(caches | {"small": None})


def test_a_run_without_any_cargo_is_refused(tmp_path: Path, tiny_run: Callable[..., Path]) -> None:
    run = tiny_run(tmp_path)
    sections = yaml.safe_load(run.read_text())
    del sections["steering"]
    run.write_text(yaml.safe_dump(sections))
    with pytest.raises(ConfigError, match="nothing is carried: a run has a section kv_cache or lo"):
        read_run_file(run)
