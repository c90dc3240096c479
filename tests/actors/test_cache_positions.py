"""Caches between position schemes: one layer of one set of weights, under two of them.

In a model of one layer nothing that is cached has looked at another token yet: models that differ
in how they tell positions alone have the same cells, and each must go on from the other's as from
its own. That is the oracle for taking positions off and putting them on.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from actors.cached_text import map_inputs
from actors.caching import cell_sites, continuation_nll, know, read
from actors.engine import Engine, load
from alignment.cache_fit import fit_caches
from alignment.cache_map import CacheMoments, Reduction

TEXT = "She reads the old map slowly, and then folds it away again. Rain fell on the tin roof."
PREFIX = 14


def shallow(checkpoint: Path, to: Path, changes: dict[str, Any]) -> Engine:
    """The first layer of a tiny model, with another configuration and the same weights."""
    config = AutoConfig.from_pretrained(checkpoint)
    config.num_hidden_layers = 1
    if hasattr(config, "layer_types"):
        config.layer_types = config.layer_types[:1]
    for name, value in changes.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config)
    weights = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    left = model.load_state_dict(weights, strict=False)
    assert not left.missing_keys, left.missing_keys
    model.save_pretrained(to)
    for file in checkpoint.glob("tokenizer*"):
        shutil.copy(file, to)
    return load(to)


def theta(value: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": value, **more}}


YARN = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}
SCHEMES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "theta": ("llama", theta(1e4), theta(5e5)),
    "scaling": ("llama", theta(1e4), YARN),
    "partial": (
        "gpt_neox",
        theta(1e4, partial_rotary_factor=0.5),
        theta(1e4, partial_rotary_factor=1.0),
    ),
    "alibi": ("falcon_alibi", {"alibi": True}, {"alibi": False}),
    "window": ("mistral", {"sliding_window": 8}, {"sliding_window": None}),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
def test_a_model_goes_on_from_the_cells_of_another_scheme(
    scheme: str, back: bool, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    case, *changes = SCHEMES[scheme]
    ends = [tmp_path / name for name in ("one", "other")]
    engines = [shallow(checkpoint(case), *of) for of in zip(ends, changes, strict=True)]
    source, target = engines[::-1] if back else engines
    (theirs,), (own,) = read(source, "a", [TEXT]), read(target, "b", [TEXT])
    for site, cells in own.cells.items():
        np.testing.assert_allclose(theirs.cells[site], cells, rtol=1e-5, atol=1e-6)
    fed = own.ids[PREFIX:]
    there, native = continuation_nll(target, fed, [theirs.first(PREFIX), own.first(PREFIX)])
    assert there == pytest.approx(native, abs=1e-5)
    # The scheme matters: the source says something else after the same cells.
    (elsewhere,) = continuation_nll(source, fed, [theirs.first(PREFIX)])
    assert abs(elsewhere - native) > 1e-4


@pytest.fixture(scope="module")
def many() -> list[str]:
    """Sentences of the same words at other places."""
    words = TEXT.lower().replace(".", "").replace(",", "").split()
    draw = np.random.default_rng(0)
    return [" ".join(draw.permutation(words)) for _ in range(60)]


@pytest.mark.parametrize("back", [False, True], ids=["off", "on"])
def test_learned_positions_are_taken_off_and_put_on_by_the_map(
    back: bool, many: list[str], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Without positions of their own (as before any rotation) to and from those of GPT-2.

    Putting them on takes what the target knows: its positions are in what enters its first block.
    """
    learned = shallow(checkpoint("gpt2"), tmp_path / "learned", {})
    plain = shallow(checkpoint("gpt2"), tmp_path / "plain", {})
    with torch.no_grad():
        plain.model.get_parameter("transformer.wpe.weight").zero_()
    source, target = (plain, learned) if back else (learned, plain)
    halves = [_rows(source, target, some) for some in (many[:30], many[30:])]
    names = list(halves[0][0])
    reduced = {name: Reduction.of(halves[0][0][name]) for name in names}
    sums = [
        CacheMoments.of(torch.cat([reduced[name](of[name]) for name in names], 1), y)
        for of, y in halves
    ]
    widths = dict.fromkeys(cell_sites(1), 32)
    whole = fit_caches(sums[0], sums[1], reduced, widths).held_out_r2
    cells = torch.arange(64)
    only = {name: reduced[name] for name in cell_sites(1)}
    fewer = [of.of_inputs(cells) for of in sums]
    alone = fit_caches(fewer[0], fewer[1], only, widths).held_out_r2
    assert min(whole.values()) > 0.95
    # Cells alone tell the word, wherever it stood, but hardly where it is to stand.
    if back:
        assert max(alone.values()) < 0.6
    else:
        assert min(alone.values()) > 0.8


def _rows(source: Engine, target: Engine, texts: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
    """What a map reads and writes of all tokens but the first of every text."""
    inputs: list[dict[str, np.ndarray]] = []
    outputs = []
    for text in texts:
        (theirs,), (own,) = read(source, "a", [text]), read(target, "b", [text])
        known = know(target, own.ids, 0).states
        inputs.append(map_inputs(theirs, own.spans, known))
        outputs.append(np.concatenate(list(own.cells.values()), axis=1)[1:])
    of = {n: torch.from_numpy(np.concatenate([each[n][1:] for each in inputs])) for n in inputs[0]}
    return of, torch.from_numpy(np.concatenate(outputs))
