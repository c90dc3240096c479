"""A model as an actor: loaded once, then asked. A plain class, that runs with or without Ray."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from actors import (
    adapted,
    adapter_refit,
    adapter_solving,
    adapter_training,
    behaviour,
    cache_training,
    caching,
    encoding,
    hand_over,
    latent_reading,
    mending,
    reading,
    training,
    verifying,
    vocabularies,
    weights,
)
from actors.adapter_refit import Changes
from actors.adapter_solving import Solving
from actors.adapter_training import AdapterTraining, TrainedAdapter
from actors.anchors import AnchorBatch
from actors.behaviour import Neutral
from actors.cache_training import CacheTraining, TrainedCaches
from actors.cached_text import Read
from actors.caching import CellsBySite
from actors.cargo import kv_cache
from actors.catalog import ModelFacts, ModelSpec
from actors.engine import Held, load
from actors.examples import Example, foreseen
from actors.exchange import Activations
from actors.hand_over import Passage
from actors.latent_reading import Slopes
from actors.learning import Taken
from actors.prompt_training import PromptTraining, train_prompt
from actors.prompting import prompting
from actors.reading import NotFinite
from actors.sites import Injection
from actors.training import TrainedMap, TrainOrder
from actors.verifying import Trial
from alignment.cache_map import CacheMap
from alignment.updates import Update
from cluster.world import World


class ModelHost:
    """One live model. Every method leaves it as it found it."""

    def __init__(
        self,
        spec: ModelSpec,
        cache: Path,
        threads: int = 1,
        held: Held = "whole",
        *,
        world: World | None = None,
    ) -> None:
        """Get the weights to a local checkpoint under `cache` if they are not there, and load them.

        Over several ranks this is one of them, and `world` says which: every rank answers every
        call, in the same way.

        Raises:
            ModelError: the source is missing, broken or not supported; one line.
            ShardingError: the model cannot lie over several ranks.
        """
        checkpoint = weights.prepare(spec, cache)
        self._checkpoint, self._base = checkpoint, spec.hub or spec.name
        self._facts = weights.facts(checkpoint, spec.name, spec.dtype)
        self._engine = load(checkpoint, spec.dtype, threads, held, world)

    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return self._facts

    def activations(self, batch: AnchorBatch, sites: tuple[str, ...]) -> Activations:
        """See `actors.reading.activations`."""
        with self._named():
            return reading.activations(self._engine, self._facts.fingerprint, batch, sites)

    def cache(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """See `actors.reading.cache`."""
        return reading.cache(self._engine, texts)

    def read(self, texts: Sequence[str]) -> list[Read]:
        """See `actors.caching.read`."""
        with self._named():
            return caching.read(self._engine, self._facts.fingerprint, texts)

    def known(self, texts: Sequence[str]) -> list[np.ndarray]:
        """What it knows of the tokens of each text without any layer: `caching.know`."""
        tokens = (encoding.encode(self._engine, [text]).ids[0].cpu().numpy() for text in texts)
        return [caching.know(self._engine, ids, 0).states for ids in tokens]

    def hand_over(
        self,
        passages: Sequence[Passage],
        source: Sequence[Read],
        others: Sequence[Read | None],
        maps: Mapping[str, np.ndarray],
        late: Sequence[float] = (),
        losses: bool = False,
    ) -> list[dict[str, float]]:
        """See `actors.hand_over.nats`: of each passage, beside what the source has read of it and
        of another one; with `losses` also after `actors.mending.put_right`. `maps` are files, as
        bytes, and the first is the chief one."""
        found, changed = [], mending.put_right if losses else None
        with self._named():
            made = {name: CacheMap.from_bytes(file.tobytes()) for name, file in maps.items()}
            chief = next(iter(made))
            both = hand_over.meet_all(self._engine, self._facts.fingerprint, passages, source)
            for met, other in zip(both, others, strict=True):
                found.append(hand_over.nats(self._engine, met, made, chief, other, late, changed))
        return found

    def importance(self, passages: Sequence[Passage]) -> dict[str, np.ndarray]:
        """What each number of a cell matters to it: `caching.importance`."""
        cuts = [
            (read.ids, passage.tokens_in(read.spans))
            for passage in passages
            for read in self.read([passage.text])
        ]
        return caching.importance(self._engine, cuts)

    def reduced(self, texts: Sequence[str], by: np.ndarray) -> list[Read]:
        """See `actors.cache_training.reduced`; the map is a file, as bytes."""
        made = CacheMap.from_bytes(by.tobytes())
        return [cache_training.reduced(each, made) for each in self.read(texts)]

    def train_cache_map(
        self,
        base: np.ndarray,
        fitted: Sequence[Passage],
        held: Sequence[Passage],
        training: CacheTraining,
        *reads: Sequence[Read],
    ) -> TrainedCaches:
        """See `actors.cache_training.train_cache_map`.

        `base` is a file, as bytes; `reads` are batches of what the source has read, `reduced`, of
        the passages to fit and then of those held out.
        """
        with self._named():
            made = CacheMap.from_bytes(base.tobytes())
            lessons = [
                cache_training.lesson(self._engine, passage, read, made)
                for passage, read in zip((*fitted, *held), chain(*reads), strict=True)
            ]
            of = lessons[: len(fitted)], lessons[len(fitted) :]
            return cache_training.train_cache_map(self._engine, base.tobytes(), *of, training)

    def receive(self, text: str, source: Read, by: CacheMap) -> Read:
        """See `actors.cargo.kv_cache.receive`."""
        return kv_cache.receive(self._engine, self._facts.fingerprint, text, source, by)

    def reread(self, ids: np.ndarray, cells: CellsBySite) -> dict[str, np.ndarray]:
        """See `actors.caching.reread`."""
        return caching.reread(self._engine, ids, cells)

    def as_cached(self, cells: CellsBySite) -> dict[str, Tensor]:
        """Keys (rotated) and values [heads, p, w] by site, as transformers caches them."""
        held: dict[str, Tensor] = {}
        for layer, (keys, values) in enumerate(caching.as_cached(self._engine, [cells])):
            held |= {f"keys.{layer}": keys[0].cpu(), f"values.{layer}": values[0].cpu()}
        return held

    def go_on(self, text: str) -> Trial:
        """See `actors.verifying.begin`."""
        (native,) = self.read([text])
        return verifying.begin(self._engine, native)

    def foresee(self, trial: Trial, cells: CellsBySite) -> np.ndarray:
        """See `actors.verifying.Trial.nats`."""
        return trial.nats(self._engine, cells)

    def forward(self, batch: AnchorBatch) -> int:
        """See `actors.reading.forward`."""
        return reading.forward(self._engine, batch)

    def pooled(
        self, texts: Sequence[str], sites: tuple[str, ...], first_words: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """See `actors.reading.pooled`."""
        with self._named():
            return reading.pooled(self._engine, texts, sites, first_words)

    def next_word_log_odds(
        self,
        prompts: Sequence[str],
        positive: Sequence[str],
        negative: Sequence[str],
        injections: Sequence[Injection | None],
    ) -> np.ndarray:
        """See `actors.behaviour.next_word_log_odds`."""
        return behaviour.next_word_log_odds(self._engine, prompts, positive, negative, injections)

    def next_word_chances(
        self,
        prompts: Sequence[str],
        words: Sequence[str],
        injections: Sequence[Injection | None],
    ) -> np.ndarray:
        """See `actors.behaviour.next_word_chances`."""
        return behaviour.next_word_chances(self._engine, prompts, words, injections)

    def train_map(self, order: TrainOrder) -> TrainedMap:
        """See `actors.training.train_map`."""
        return training.train_map(self._engine, order)

    def neutral(self, texts: Sequence[str], injections: Sequence[Injection | None]) -> Neutral:
        """See `actors.behaviour.neutral`."""
        return behaviour.neutral(self._engine, texts, injections)

    def generate(
        self, prompts: Sequence[str], injections: Sequence[Injection | None], max_new_tokens: int
    ) -> list[list[str]]:
        """See `actors.behaviour.generate`."""
        return behaviour.generate(self._engine, prompts, injections, max_new_tokens)

    def token_ids(self) -> dict[str, int]:
        """See `actors.vocabularies.token_ids`."""
        return vocabularies.token_ids(self._checkpoint)

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """What the model reads of each token [k]: float32 [k, d]."""
        return reading.embeddings(self._engine, ids)

    def train_adapter(
        self, examples: Sequence[Example], held_out: Sequence[Example], training: AdapterTraining
    ) -> TrainedAdapter:
        """See `actors.adapter_training.train_adapter`."""
        return adapter_training.train_adapter(self._engine, examples, held_out, training)

    def own_texts(
        self,
        updates: Mapping[str, Update],
        openings: Sequence[str],
        max_new_tokens: int,
        seed: int,
        begun: bool,
        least: float = 0.0,
    ) -> list[Example]:
        """See `actors.adapter_refit.own_texts`."""
        order = (self._engine, updates, openings, max_new_tokens, seed)
        return adapter_refit.own_texts(*order, begun=begun, least=least)

    def changes(
        self,
        updates: Mapping[str, Update],
        texts: Sequence[Example],
        tokens: np.ndarray,
        most: int,
        outright: bool = False,
    ) -> tuple[np.ndarray, list[Changes]]:
        """See `actors.adapter_refit.changes`."""
        order = (self._engine, updates, texts, tokens, most)
        return adapter_refit.changes(*order, outright=outright)

    def refit_adapter(
        self,
        texts: Sequence[Example],
        taught: Sequence[Changes],
        held_out: int,
        tokens: np.ndarray,
        training: AdapterTraining,
        most: int | None = None,
        foreseen: float = 0.0,
    ) -> TrainedAdapter:
        """See `actors.adapter_refit.refit_adapter`."""
        order = (texts, taught, held_out, tokens, training, most, foreseen)
        return adapter_refit.refit_adapter(self._engine, *order)

    def solve_adapter(
        self,
        texts: Sequence[Example],
        taught: Sequence[Changes],
        held_out: int,
        tokens: np.ndarray,
        solving: Solving,
        foreseen: float,
    ) -> TrainedAdapter:
        """See `actors.adapter_solving.solve_adapter`."""
        order = (texts, taught, held_out, tokens, solving, foreseen)
        return adapter_solving.solve_adapter(self._engine, *order)

    def as_peft(self, updates: Mapping[str, Update]) -> dict[str, np.ndarray]:
        """The files of a PEFT directory for this model, as bytes: see
        `actors.cargo.lora.write_adapter`."""
        # Not at the top: PEFT takes seconds to import.
        from actors.cargo.lora import Adapter, write_adapter
        from actors.matrices import places

        with TemporaryDirectory() as scratch:
            directory = Path(scratch)
            write_adapter(Adapter(updates), places(self._engine), directory, self._base)
            return {
                file.name: np.frombuffer(file.read_bytes(), dtype=np.uint8)
                for file in sorted(directory.iterdir())
            }

    def foreseen_with(
        self, examples: Sequence[Example], updates: Mapping[str, Update]
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `actors.adapted.foreseen_with`."""
        return adapted.foreseen_with(self._engine, examples, updates)

    def written_with(
        self, prompts: Sequence[str], updates: Mapping[str, Update], max_new_tokens: int
    ) -> list[str]:
        """See `actors.adapted.written_with`."""
        return adapted.written_with(self._engine, prompts, updates, max_new_tokens)

    def answered_with(
        self, requests: Sequence[str], updates: Mapping[str, Update], max_new_tokens: int
    ) -> list[str]:
        """See `actors.adapted.answered_with`."""
        return adapted.answered_with(self._engine, requests, updates, max_new_tokens)

    def stream(self, texts: Sequence[str], site: str) -> list[np.ndarray]:
        """See `actors.reading.stream`."""
        with self._named():
            return reading.stream(self._engine, texts, site)

    def beginnings(self, texts: Sequence[str], tokens: int) -> list[str]:
        """See `actors.encoding.beginnings`."""
        return encoding.beginnings(self._engine, texts, tokens)

    def train_prompt(
        self, examples: Sequence[Example], held_out: Sequence[Example], training: PromptTraining
    ) -> Taken[Tensor]:
        """See `actors.prompt_training.train_prompt`."""
        return train_prompt(self._engine, examples, held_out, training)

    def foreseen_prompted(
        self, examples: Sequence[Example], rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `actors.examples.foreseen`, with a soft prompt [k, d] before each."""
        with prompting(self._engine, torch.from_numpy(rows).to(self._engine.device)):
            return foreseen(self._engine, examples)

    def prompt_stream(self, rows: np.ndarray, site: str) -> np.ndarray:
        """See `actors.reading.prompt_stream`."""
        with self._named():
            return reading.prompt_stream(self._engine, rows, site)

    def latent_slopes(self, before: str, examples: Sequence[Example], rows: np.ndarray) -> Slopes:
        """See `actors.latent_reading.slopes`."""
        return latent_reading.slopes(self._engine, before, examples, rows)

    def foreseen_after(
        self, before: str, examples: Sequence[Example], rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `actors.latent_reading.foreseen_after`."""
        return latent_reading.foreseen_after(self._engine, before, examples, rows)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say of which model numbers are none."""
        try:
            yield
        except NotFinite as error:
            raise NotFinite(f"model {self._facts.name}, {error}") from error
