"""Caches as directories: what comes back, and what is refused before any model sees it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from actors.cached_text import Read
from actors.caching import continuation_nll, read
from actors.cargo.memory_package import CELLS_FILE, MemoryPackage
from actors.cargo.memory_record import RECORD_FILE, PackageError, read_record
from actors.catalog import ModelFacts
from actors.checkpoints import facts
from actors.engine import load

TEXT = "Rain fell on the tin roof while the two brothers argued about the price of salt."


@pytest.fixture(scope="module")
def tiny(checkpoint: Callable[[str], Path]) -> ModelFacts:
    return facts(checkpoint("gemma3_text"), "tiny", "float32")


@pytest.fixture(scope="module")
def of_text(checkpoint: Callable[[str], Path], tiny: ModelFacts) -> Read:
    (found,) = read(load(checkpoint("gemma3_text")), tiny.fingerprint, [TEXT])
    return found


@pytest.fixture
def package(of_text: Read, tmp_path: Path) -> Path:
    directory = tmp_path / "memory"
    MemoryPackage("tiny", TEXT, of_text).save(directory)
    return directory


def test_a_model_goes_on_from_what_was_kept(
    package: Path, of_text: Read, checkpoint: Callable[[str], Path], tiny: ModelFacts
) -> None:
    kept = MemoryPackage.load(package)
    kept.require_of(tiny)
    assert (kept.model, kept.text) == ("tiny", TEXT)
    assert np.array_equal(kept.read.spans, of_text.spans)
    nats = continuation_nll(
        load(checkpoint("gemma3_text")), kept.read.ids[9:], [kept.read.first(9), of_text.first(9)]
    )
    assert nats[0] == nats[1]


def test_the_record_is_read_without_the_cells(package: Path, tiny: ModelFacts) -> None:
    (package / CELLS_FILE).unlink()
    record = read_record(package)
    assert record.fingerprint == tiny.fingerprint
    assert record.layers == 3
    with pytest.raises(PackageError, match=r"memory\.safetensors: cannot be read: No such file"):
        MemoryPackage.load(package)


def test_what_is_there_is_not_written_over(package: Path, of_text: Read) -> None:
    with pytest.raises(PackageError, match="already there"):
        MemoryPackage("other", TEXT, of_text).save(package)
    assert MemoryPackage.load(package).model == "tiny"
    assert [each.name for each in package.parent.iterdir()] == ["memory"]


def rewritten(package: Path, **changes: Any) -> None:
    """With another record."""
    record = json.loads((package / RECORD_FILE).read_text()) | changes
    (package / RECORD_FILE).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 7}, "format 7; 1 can be read"),
        ({"tokens": "many"}, "tokens: .*integer"),
        ({"colour": 1}, "colour: Extra inputs"),
        ({"sha256": "0"}, r"not the file that memory\.json describes"),
        ({"tokens": 3}, "ids and spans are not of 3 tokens"),
        ({"text": "Rain"}, "not in a text of 4 characters"),
        ({"layers": 2}, r"has an odd keys\.2, for a cache of 2 layers"),
        ({"layers": 4}, r"lacks keys\.3, for a cache of 4 layers"),
    ],
)
def test_records_that_do_not_fit_are_refused(
    package: Path, changes: dict[str, Any], said: str
) -> None:
    rewritten(package, **changes)
    with pytest.raises(PackageError, match=said) as refused:
        MemoryPackage.load(package)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cells: cells.update({"keys.1": cells["keys.1"][:4]}), r"keys\.1: cells of shape"),
        (lambda cells: cells.update({"keys.1": cells["keys.1"] * np.inf}), r"keys\.1: .* finite"),
        (lambda cells: cells.update({"keys.1": cells["keys.1"].astype(np.float16)}), "float32"),
    ],
)
def test_cells_that_do_not_fit_are_refused(
    package: Path, change: Callable[[dict[str, np.ndarray]], None], said: str
) -> None:
    cells = safetensors_numpy.load((package / CELLS_FILE).read_bytes())
    change(cells)
    data = safetensors_numpy.save(cells)
    (package / CELLS_FILE).write_bytes(data)
    rewritten(package, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(PackageError, match=said):
        MemoryPackage.load(package)


def test_damage_is_said_plainly(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"is no memory package: it has no memory\.json"):
        MemoryPackage.load(tmp_path)
    (package / RECORD_FILE).write_text("{")
    with pytest.raises(PackageError, match="cannot be read"):
        MemoryPackage.load(package)


def test_a_cache_of_another_revision_or_shape_is_refused(package: Path, tiny: ModelFacts) -> None:
    kept = MemoryPackage.load(package)
    other = tiny.model_copy(update={"fingerprint": "f" * 64})
    with pytest.raises(PackageError, match="tiny here has fingerprint ffffffffffff: another"):
        kept.require_of(other)
    with pytest.raises(PackageError, match="a cache of 3 layers; tiny has 5"):
        kept.require_of(tiny.model_copy(update={"layers": 5}))
    with pytest.raises(PackageError, match=r"keys\.0: cells of width 32; tiny has 16 there"):
        kept.require_of(tiny.model_copy(update={"kv_heads": 1}))
