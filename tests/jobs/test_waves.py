"""A whole sweep whose models do not fit together: the same bits, and as few loads as can be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweeps import Result, assert_same, run_script

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SWEEP = """
import sys
from pathlib import Path
from jobs import opened, sweep
from jobs.config import read_run_file
from jobs.progress import Reporter
import functools

opened.session = functools.partial(opened.session, num_cpus=2)
sweep.sweep(read_run_file(Path(sys.argv[1])), Reporter())
"""


def swept(run: Path) -> Result:
    """What a sweep leaves, on a Ray of two cores whatever the machine."""
    return Result.of(run, run_script(SWEEP, str(run)).stderr)


def loaded(said: str) -> list[str]:
    """The models that were loaded, in order."""
    lines = [line for line in said.splitlines() if line.startswith("loading ")]
    starts = [line.removesuffix(" ...") for line in lines if line.endswith(" ...")]
    return [name for line in starts for name in line.removeprefix("loading ").split(", ")]


@pytest.mark.long
def test_models_that_do_not_fit_together_take_turns_to_the_same_numbers(
    tmp_path: Path, tiny_run: Callable[..., Path], corpora: Path
) -> None:
    small = {
        "anchors": {
            "corpora": [{"file": str(corpora / "anchors.txt")}],
            "texts": 48,
            "shard_texts": 12,
            "batch_texts": 4,
        },
        "maps": {"roles": ["representation"], "fitters": ["ridge"]},
    }
    together = tiny_run(tmp_path / "together", 2, **small, cluster={"cpus_per_model": 1.0})
    apart = tiny_run(tmp_path / "apart", 2, **small, cluster={"cpus_per_model": 2.0})
    undivided = swept(together)
    assert "waves" not in undivided.said
    assert loaded(undivided.said) == ["models"]

    divided = swept(apart)
    assert "2 models on 2 CPU: 2 waves, 3 loads" in divided.said
    first, second, third = loaded(divided.said)
    assert first == third != second
    assert_same(divided, undivided)
