"""A sweep small enough for a test: two tiny random models, and corpora by a small grammar."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.suites import SUITES
from jobs.__main__ import main
from jobs.config import read_run_file
from tests.sweeps import Driver, Result

FAMILIES = {"tiny-llama": "llama", "tiny-gemma": "gemma3_text", "tiny-qwen": "qwen2"}

WHO = ("The ferryman", "A tall nurse", "My aunt", "The youngest clerk", "Nobody", "Our baker")
DID = ("carried", "painted", "forgot", "mended", "weighed", "hid")
WHAT = ("the copper kettle", "seven letters", "a heavy door", "his red coat", "the old boat")
WHERE = ("behind the mill", "near the harbour", "under the bridge", "at the market")
WHEN = ("before the rain came", "while the town slept", "on a cold morning", "as the bell rang")


def sentences(*parts: Sequence[str]) -> list[str]:
    """Every sentence that the parts make, in an order that mixes all of them."""
    whole = [" ".join(words) + "." for words in product(*parts)]
    return [whole[number * 7919 % len(whole)] for number in range(len(whole))]


def felt(words: Sequence[str]) -> list[str]:
    """Sentences in which one of the words is said of something."""
    return sentences(("The stew", "That play", "Her hat", "This song"), ("was quite",), words)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with anchors.txt, feelings.jsonl (text, label) and places.jsonl."""
    directory = tmp_path_factory.mktemp("corpora")
    anchors = islice(sentences(WHO, DID, WHAT, WHERE, WHEN), 900)
    (directory / "anchors.txt").write_text("\n".join(anchors))
    suite = SUITES["sentiment"]
    feelings = [(text, 1) for text in felt(suite.positive)]
    feelings += [(text, 0) for text in felt(suite.negative)]
    places = [(text, 1) for text in sentences(("We met",), WHERE, WHEN)]
    places += [(text, 0) for text in sentences(("They slept",), WHERE, WHEN)]
    for name, texts in (("feelings", feelings), ("places", places)):
        records = [json.dumps({"text": text, "label": label}) for text, label in texts]
        (directory / f"{name}.jsonl").write_text("\n".join(records))
    return directory


@pytest.fixture(scope="session")
def tiny_models(
    tmp_path_factory: pytest.TempPathFactory, new_checkpoint: Callable[..., Path]
) -> dict[str, Path]:
    """Checkpoints of different families, widths and vocabularies, by name."""
    suite = SUITES["sentiment"]
    read = [*sentences(WHO, DID, WHAT, WHERE, WHEN), *felt((*suite.positive, *suite.negative))]
    read += [*suite.prompts, *suite.samples]
    sizes = {"tiny-llama": (500, 32), "tiny-gemma": (800, 48), "tiny-qwen": (650, 40)}
    return {
        name: new_checkpoint(tmp_path_factory.mktemp(name), FAMILIES[name], read, tokens, width)
        for name, (tokens, width) in sizes.items()
    }


@pytest.fixture(scope="session")
def tiny_run(corpora: Path, tiny_models: dict[str, Path]) -> Callable[..., Path]:
    """Write a run file that sweeps the first tiny models in `home`: `tiny_run(home, models=2)`.

    120 batches in 20 shards: enough of them to be caught in the middle.
    """

    def contrast(name: str, file: str) -> dict[str, Any]:
        sides = {"positive": 1, "negative": 0}
        source = {"file": str(corpora / file), "field": "text"}
        return {
            "name": name,
            "texts": 12,
            **{side: source | {"where": {"label": label}} for side, label in sides.items()},
        }

    def write(home: Path, models: int = 2, **sections: Any) -> Path:
        directories = islice(tiny_models.items(), models)
        run = {
            "name": "tiny",
            "home": str(home),
            "models": [{"name": name, "directory": str(at)} for name, at in directories],
            "anchors": {
                "corpora": [{"file": str(corpora / "anchors.txt")}],
                "texts": 240,
                "shard_texts": 12,
                "batch_texts": 2,
            },
            "similarity": {"rows": 150, "neighbours": 5, "permutations": 20},
            "maps": {"roles": ["representation", "decision_making"]},
            "steering": {
                "concepts": [contrast("sentiment", "feelings.jsonl")],
                "other": contrast("places", "places.jsonl"),
                "strengths": [0.2, 0.6],
                "neutral_texts": 4,
                "samples": 2,
                "sample_tokens": 4,
                "bootstrap_draws": 200,
            },
            "cluster": {"cpus_per_model": 0.5},
        }
        home.mkdir(parents=True, exist_ok=True)
        file = home / "run.yaml"
        file.write_text(yaml.safe_dump(run | sections))
        return file

    return write


@pytest.fixture(scope="session")
def caches(corpora: Path) -> dict[str, Any]:
    """A section that hands caches over between tiny models."""
    replies = sentences(WHERE, WHO, ("never", "at last"), DID, WHAT, ("again", "for us"))
    (corpora / "replies.txt").write_text("\n".join(replies[:900]))
    return {
        "content": {
            "tales": {"file": str(corpora / "anchors.txt"), "joined": 3},
            "replies": {"file": str(corpora / "replies.txt"), "joined": 3},
        },
        "cached": 90,
        "judged": 50,
        "texts": 60,
        "held": 4,
        "test": 3,
        "components": 12,
        "again": [0.25],
        "shorter": [0.5],
        "losses": True,
        "small": 0.06,
        "trained": True,
        "bootstrap_draws": 200,
    }


@pytest.fixture
def start() -> Iterator[Callable[..., Driver]]:
    """Start sweeps; what is left of them ends with the test."""
    drivers: list[Driver] = []

    def begin(run: Path, **environment: str) -> Driver:
        drivers.append(Driver(run, **environment))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.end()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Path]) -> Result:
    """What a sweep leaves that nothing happens to."""
    run = tiny_run(tmp_path_factory.mktemp("undisturbed"))
    return Result.of(run, Driver(run).finish())


@pytest.fixture
def same_run(tmp_path: Path, tiny_run: Callable[..., Path], undisturbed: Result) -> Path:
    """The undisturbed sweep in another home, tracked beside it: to be tracked it must be equal."""
    uri = read_run_file(undisturbed.run).tracking_uri
    return tiny_run(tmp_path / "home", tracking={"uri": uri})


@pytest.fixture
def run_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[object, str, str]]:
    """Run a verb with nothing measured in its home: what it ends with, prints and complains of."""

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["isthmus", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    settings = {
        "ISTHMUS_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "160",
        # Those that a verb sets for itself must not outlive the test.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return run
