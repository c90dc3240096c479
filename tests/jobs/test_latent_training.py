"""Latents trained through several frozen models, resumed, and joined later."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.engine import Engine, load
from actors.examples import Example
from actors.latent_reading import Slopes, foreseen_after, slopes
from actors.reading import embeddings, stream
from alignment.latents import Latents, LatentShape, Spread
from cluster.storage import DirectoryStore
from jobs.latent_training import (
    Foreseen,
    LatentTraining,
    Lessons,
    Rows,
    latent_rows,
    train_latents,
)

TRAINING = LatentTraining(learning_rate=1e-2, batch=8, epochs=12)
WORDS = (" noon", " night")
NAMES = ("llama", "gpt2")


class Here:
    """Models in this process; with `most`, they are gone after so many calls."""

    def __init__(self, engines: Mapping[str, Engine], most: int = 10**6) -> None:
        self.engines, self.left = engines, most

    def slopes(self, before: str, examples: Sequence[Example], rows: Rows) -> dict[str, Slopes]:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("gone")
        return {name: slopes(self.engines[name], before, examples, of) for name, of in rows.items()}

    def foreseen(self, before: str, examples: Sequence[Example], rows: Rows) -> dict[str, Foreseen]:
        return {
            name: foreseen_after(self.engines[name], before, examples, of)
            for name, of in rows.items()
        }


@pytest.fixture(scope="module")
def engines(checkpoint: Callable[[str], Path]) -> dict[str, Engine]:
    return {name: load(checkpoint(name)) for name in (*NAMES, "gemma3_text")}


@pytest.fixture(scope="module")
def lessons(engines: dict[str, Engine]) -> tuple[Lessons, Lessons]:
    """Which word comes last depends on the text, which readers see as latents alone."""
    texts = [
        f"{kind} {number} carried {thing}"
        for number in range(16)
        for kind, thing in (("The ferry", "sheep"), ("A lorry", "coal"))
    ]
    examples = [Example(f". It was{WORDS[n % 2]}", 8) for n in range(len(texts))]
    states = stream(engines["llama"], texts, "residual.1")
    cut = 24
    return (
        Lessons("Heard:", states[:cut], examples[:cut]),
        Lessons("Heard:", states[cut:], examples[cut:]),
    )


def begun(engines: dict[str, Engine], lessons: tuple[Lessons, Lessons], *names: str) -> Latents:
    torch.manual_seed(0)
    states = torch.from_numpy(np.concatenate(lessons[0].states))
    shape = LatentShape(states.shape[1], count=3, width=16, blocks=1, heads=2)
    made = Latents(shape, Spread.of(states))
    for name in names:
        add(made, engines, name)
    return made


def add(latents: Latents, engines: dict[str, Engine], name: str) -> None:
    rows = torch.from_numpy(embeddings(engines[name], np.arange(200)))
    latents.add(name, Spread.of(rows))


def test_readers_learn_together_and_go_on_where_they_were_left(
    engines: dict[str, Engine], lessons: tuple[Lessons, Lessons], tmp_path: Path
) -> None:
    told: list[int] = []
    whole = train_latents(
        begun(engines, lessons, *NAMES),
        NAMES,
        *lessons,
        TRAINING,
        Here(engines),
        DirectoryStore(tmp_path / "one"),
        "question",
        told.append,
    )
    assert len(whole.held_out) == 1 + TRAINING.epochs
    assert min(whole.held_out) < 0.75 * whole.held_out[0]
    assert sum(told) == TRAINING.epochs * len(lessons[0].examples)
    store = DirectoryStore(tmp_path / "other")

    def again(most: int) -> Latents:
        made = train_latents(
            begun(engines, lessons, *NAMES),
            NAMES,
            *lessons,
            TRAINING,
            Here(engines, most),
            store,
            "question",
        )
        assert made.held_out == whole.held_out
        return made.latents

    with pytest.raises(ConnectionError):
        again(7)  # steps, of 36: in the third epoch
    assert again(30).to_bytes() == whole.latents.to_bytes()
    assert again(0).to_bytes() == whole.latents.to_bytes(), "all of it is there"
    assert len([*store.root.rglob("blobs/*/*")]) == 1, "and nothing but the end"


def test_what_is_read_is_of_the_text(
    engines: dict[str, Engine], lessons: tuple[Lessons, Lessons], tmp_path: Path
) -> None:
    """Each text's own latents foresee its word better than those of a text of the other kind."""
    made = train_latents(
        begun(engines, lessons, *NAMES),
        NAMES,
        *lessons,
        TRAINING,
        Here(engines),
        DirectoryStore(tmp_path),
        "question",
    )
    held = lessons[1]
    rows = latent_rows(made.latents, NAMES, held.states)
    swapped = {name: np.roll(of, 1, axis=0) for name, of in rows.items()}
    own, other = (Here(engines).foreseen("Heard:", held.examples, of) for of in (rows, swapped))
    for name in NAMES:
        assert (own[name][0] < other[name][0]).all()


def test_a_reader_joins_later_by_its_adapter_alone(
    engines: dict[str, Engine], lessons: tuple[Lessons, Lessons], tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path)
    first = begun(engines, lessons, "llama")
    made = train_latents(first, ("llama",), *lessons, TRAINING, Here(engines), store, "q").latents
    before = {name: each.clone() for name, each in made.state_dict().items()}
    add(made, engines, "gemma3_text")
    joined = train_latents(
        made,
        ("gemma3_text",),
        *lessons,
        TRAINING,
        Here(engines),
        store,
        "q",
        resampler=False,
    )
    assert min(joined.held_out) < 0.9 * joined.held_out[0]
    after = joined.latents.state_dict()
    assert all(after[name].equal(each) for name, each in before.items())
