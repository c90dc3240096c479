"""Maps trained between two models that are never loaded together; what was asked is kept."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from actors.behaviour import next_word_chances
from actors.cargo.steering import injection
from actors.catalog import ModelFacts, ModelSpec
from actors.checkpoints import facts
from actors.engine import load
from actors.host import ModelHost
from actors.training import TrainedMap, Training, TrainingError, TrainOrder, train_map
from alignment.maps import Affine, map_from_bytes
from cluster.gang import Gang
from cluster.storage import DirectoryStore
from evaluation.suites import SUITES
from jobs.progress import Reporter
from jobs.train import Lesson, shared_words, teach, trained
from jobs.units import Asking
from jobs.waves import Crew

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
SOURCE, TARGET = "tiny-llama", "tiny-gemma"
SITES = ("residual.1", "residual.2")


@pytest.fixture
def known(tiny_models: dict[str, Path]) -> dict[str, ModelFacts]:
    return {name: facts(tiny_models[name], name) for name in (SOURCE, TARGET)}


@pytest.fixture
def asking(
    tmp_path: Path, tiny_models: dict[str, Path], known: dict[str, ModelFacts]
) -> Iterator[Callable[[], Asking]]:
    """Begin anew with what is kept: each model is a wave of its own."""
    with ExitStack() as open_things:

        def begin() -> Asking:
            def launch(name: str) -> Gang:
                spec = ModelSpec(name=name, directory=tiny_models[name])
                return Gang.launch(ModelHost, spec, tmp_path, name=name, num_cpus=0.5)

            reporter = Reporter(Console(file=StringIO()))
            crew = Crew([SOURCE, TARGET], [(SOURCE,), (TARGET,)], launch, known, reporter)
            open_things.callback(crew.release)
            return Asking(crew, DirectoryStore(tmp_path / "store"), 2, 0, reporter)

        yield begin


@pytest.fixture
def lesson(known: dict[str, ModelFacts]) -> Lesson:
    suite = SUITES["sentiment"]
    drawn = np.random.default_rng(0)
    weight = torch.from_numpy(drawn.standard_normal((48, 32), dtype=np.float32))
    return Lesson(
        source=known[SOURCE],
        target=known[TARGET],
        source_site=SITES[0],
        target_site=SITES[1],
        base_map=Affine(weight, torch.zeros(48)).to_bytes(),
        vectors=drawn.standard_normal((2, 32), dtype=np.float32),
        source_spread=3.0,
        target_spread=5.0,
        strength=0.5,
        prompts=suite.prompts[:6],
        held_out=suite.prompts[6:9],
        words=(*suite.positive, *suite.negative),
        training=Training(rank=2, epochs=3, batch=3),
    )


def by_hand(lesson: Lesson, tiny_models: dict[str, Path]) -> TrainedMap:
    """The same without a cluster."""
    source, target = (load(tiny_models[name]) for name in (SOURCE, TARGET))
    prompts = (*lesson.prompts, *lesson.held_out)

    def chances(*pushed: tuple[np.ndarray, float]) -> np.ndarray:
        injections = [injection(SITES[0], each, 3.0, strength) for each, strength in pushed]
        return next_word_chances(source, prompts, lesson.words, injections or [None])

    plain = chances()[0]
    told = np.isfinite(plain[0])
    effects = [chances((each, 0.5), (each, -0.5)) for each in lesson.vectors]
    order = TrainOrder(
        base=lesson.base_map,
        site=SITES[1],
        vectors=lesson.vectors,
        spread=5.0,
        strength=0.5,
        prompts=lesson.prompts,
        held_out=lesson.held_out,
        words=[word for word, apart in zip(lesson.words, told, strict=True) if apart],
        effects=np.stack(effects)[..., told] - plain[:, told],
        training=lesson.training,
    )
    return train_map(target, order)


def test_models_that_are_never_together_train_a_map(
    asking: Callable[[], Asking], lesson: Lesson, tiny_models: dict[str, Path]
) -> None:
    first = asking()
    (taught,) = teach(first, [lesson])
    assert taught.shape == (1 + 2 * 2, 9, len(lesson.words))
    assert first.crew.loads == 1
    (found,) = trained(first, [lesson])
    assert first.crew.loads == 2  # the source was not asked again
    expected = by_hand(lesson, tiny_models)
    assert 2 <= len(found.words) < len(lesson.words)
    assert found.words == expected.words
    assert found.held_out == pytest.approx(expected.held_out, rel=1e-3)
    assert found.losses == pytest.approx(expected.losses, rel=1e-3)
    assert map_from_bytes(found.map).target_width == 48

    again = asking()
    other = replace(lesson, training=Training(rank=1, epochs=1))
    kept, new = trained(again, [lesson, other])
    assert vars(kept) == vars(found)
    assert again.crew.loads == 1  # the target, for the other way of training
    assert len(new.losses) == 1


def test_a_lesson_that_does_not_fit_is_refused_in_one_line(
    asking: Callable[[], Asking], lesson: Lesson
) -> None:
    wrong = replace(lesson, target_site="keys.1")
    said = r"^the base map writes width 48, this model has \d+ at keys\.1\Z"
    with pytest.raises(TrainingError, match=said):
        trained(asking(), [wrong])


def test_the_shared_words_are_many_and_differ() -> None:
    words = shared_words()
    assert len(words) == len(set(words)) >= 200
    assert all(word.isascii() and word.islower() and word.isalpha() for word in words)
