"""A model as an actor: loaded once, then asked. A plain class, that runs with or without Ray."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors import behaviour, reading, weights
from actors.anchors import AnchorBatch
from actors.behaviour import Neutral
from actors.catalog import ModelFacts, ModelSpec
from actors.engine import load
from actors.reading import Activations
from actors.sites import Injection


class ModelHost:
    """One live model. Every method leaves it as it found it."""

    def __init__(self, spec: ModelSpec, cache: Path, threads: int = 1) -> None:
        """Get the weights to a local checkpoint under `cache` if they are not there, and load them.

        Raises:
            ModelError: the source is missing, broken or not supported; one line.
        """
        checkpoint = weights.prepare(spec, cache)
        self._facts = weights.facts(checkpoint, spec.name, spec.dtype)
        self._engine = load(checkpoint, spec.dtype, threads)

    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return self._facts

    def activations(self, batch: AnchorBatch, sites: tuple[str, ...]) -> Activations:
        """See `actors.reading.activations`."""
        return reading.activations(self._engine, self._facts.fingerprint, batch, sites)

    def forward(self, batch: AnchorBatch) -> int:
        """See `actors.reading.forward`."""
        return reading.forward(self._engine, batch)

    def pooled(self, texts: Sequence[str], sites: tuple[str, ...]) -> dict[str, np.ndarray]:
        """See `actors.reading.pooled`."""
        return reading.pooled(self._engine, texts, sites)

    def next_word_log_odds(
        self,
        prompts: Sequence[str],
        positive: Sequence[str],
        negative: Sequence[str],
        injections: Sequence[Injection | None],
    ) -> np.ndarray:
        """See `actors.behaviour.next_word_log_odds`."""
        return behaviour.next_word_log_odds(self._engine, prompts, positive, negative, injections)

    def neutral(self, texts: Sequence[str], injections: Sequence[Injection | None]) -> Neutral:
        """See `actors.behaviour.neutral`."""
        return behaviour.neutral(self._engine, texts, injections)

    def generate(
        self, prompts: Sequence[str], injection: Injection | None, max_new_tokens: int
    ) -> list[str]:
        """See `actors.behaviour.generate`."""
        return behaviour.generate(self._engine, prompts, injection, max_new_tokens)
