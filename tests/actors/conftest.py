"""Live tiny models of every family."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.anchors import AnchorBatch
from actors.architectures import ARCHITECTURES
from actors.engine import Engine, load


@pytest.fixture(scope="session", params=sorted(ARCHITECTURES))
def engine(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Engine:
    """A live tiny model of each family in turn."""
    return load(checkpoint(request.param))


@pytest.fixture(scope="session")
def gpt_like(checkpoint: Callable[[str], Path]) -> Engine:
    """One model whose tokenizer puts nothing before a text."""
    return load(checkpoint("llama"))


@pytest.fixture
def batch(sentences: tuple[str, ...]) -> AnchorBatch:
    """All the sentences, of unlike lengths."""
    return AnchorBatch(shard=2, index=5, texts=sentences)
