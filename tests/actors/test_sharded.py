"""A model over two real DeepSpeed ranks is the model that one process has: what passes at every
site, what it keeps, what it answers, with and without something added."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray import cloudpickle
from safetensors.torch import load_file, save_file

from actors import behaviour, caching, reading
from actors.anchors import AnchorBatch
from actors.architectures import ARCHITECTURES
from actors.cache_training import CacheTraining, Lesson, TrainedCaches, train_cache_map
from actors.engine import Engine, load
from actors.examples import Example
from actors.fleet import find, spec
from actors.latent_reading import slopes
from actors.matrices import PartError, places
from actors.site_names import INJECTED, Site, SiteError
from actors.sites import Injection, fanning_out_at, injecting, site_width
from actors.training import TrainedMap, Training, TrainOrder, train_map
from actors.weights import default_cache, prepare
from alignment.cache_map import CacheMap, Reduction
from alignment.maps import Affine, LowRank, map_from_bytes
from cluster.gang import Gang
from cluster.session import session
from cluster.world import World

# The tests are not shipped: their classes travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

RELATIVE = 1e-4
SHARDED = ("gemma", "gemma2", "gemma3_text", "llama", "llama_yarn", "mistral", "mixtral", "qwen2")
SHARDED += ("qwen2_moe", "qwen3")
LATENT = [Example(": sank.", 1), Example(" it is late", 3)]
WORDS = (("glad", "happy"), ("sad", "gloomy"))
Answers = dict[str, np.ndarray]


def injection(engine: Engine, site: str) -> Injection:
    width = site_width(engine, Site.parse(site))
    vector = np.random.default_rng(width).normal(size=width).astype(np.float32)
    return Injection(site, vector, 0.5)


def answers(engine: Engine, texts: tuple[str, ...]) -> Answers:
    """Everything that a host is asked for, by name."""
    kinds = [*INJECTED, *(["router"] if engine.architecture.router else [])]
    sites = [f"{kind}.{layer}" for layer in range(len(engine.blocks)) for kind in kinds]
    found = reading.activations(engine, "", AnchorBatch(0, 0, texts), sites).points
    found |= {
        f"pooled {site}": of
        for site, of in reading.pooled(engine, texts, sites, [0] * len(texts)).items()
    }
    for layer, (keys, values) in enumerate(reading.cache(engine, texts)):
        found |= {f"cached keys {layer}": keys, f"cached values {layer}": values}
    injections = [None, *(injection(engine, f"{kind}.1") for kind in INJECTED)]
    odds = behaviour.next_word_log_odds(engine, ["She was", "They felt"], *WORDS, injections)
    cost = behaviour.neutral(engine, texts, injections)
    written = behaviour.generate(engine, texts[:1], injections[-1:], 6)[0]
    with torch.inference_mode():
        ids = torch.tensor([[5, 6, 7, 8, 9]])
        logits = engine.logits(engine.states(ids))
    one, other = (read[0] for read in (caching.read(engine, "", [text]) for text in texts[:2]))
    found |= {f"cells {site}": cells for site, cells in one.cells.items()}
    variants = [one.first(5), other.first(5)]
    continued = caching.continuation_nll(engine, one.ids[5:], variants)
    tokens = np.array([ord(letter) for letter in "".join(written)])
    return found | {
        "log-odds": odds,
        "nll": cost.nll,
        "continued": continued,
        "kl": cost.kl,
        "written": tokens,
        "logits": logits.numpy(),
    }


def essentials(engine: Engine, texts: tuple[str, ...], sites: list[str]) -> Answers:
    """Some sites, the logits and the whole cache."""
    found = reading.activations(engine, "", AnchorBatch(0, 0, texts), sites).points
    for layer, (keys, values) in enumerate(reading.cache(engine, texts)):
        found |= {f"cached keys {layer}": keys, f"cached values {layer}": values}
    with torch.inference_mode():
        ids = torch.arange(5, 25)[None]
        return found | {"logits": engine.logits(engine.states(ids)).numpy()}


def gradients(engine: Engine, kinds: tuple[str, ...]) -> Answers:
    """Of the chances of some tokens, by what is added at each kind of site to two of the rows, by
    what is cached, and by latents that stand in two texts."""
    ids = torch.arange(5, 17).view(2, 6)
    found = {}
    for kind in kinds:
        site = Site.parse(f"{kind}.1")
        drawn = torch.Generator().manual_seed(3)
        added = torch.randn(2, site_width(engine, site), generator=drawn, requires_grad=True)
        with engine.held.with_gradients():
            with fanning_out_at(engine, site, added, len(ids)):
                states = engine.states(ids)
            said = engine.logits(states[:, -1], torch.arange(20, 40)).log_softmax(1)
            (gradient,) = torch.autograd.grad(said[:, :7].sum(), added)
        found[kind] = gradient.numpy()
    rows = np.random.default_rng(5).normal(0, 0.3, (len(LATENT), 3, engine.width))
    read = slopes(engine, "The ferry", LATENT, rows.astype(np.float32))
    found |= {"latents": read.slopes, "after latents": read.nats}
    sites = caching.cell_sites(len(engine.blocks))
    drawn = torch.Generator().manual_seed(4)
    widths = [site_width(engine, Site.parse(site)) for site in sites]
    cells = {
        site: torch.randn(4, width, generator=drawn, requires_grad=True)
        for site, width in zip(sites, widths, strict=True)
    }
    with engine.held.with_gradients():
        states = engine.states_after(ids[:1], caching.fill(engine, [cells]))
        said = engine.logits(states[:, -1], torch.arange(20, 40)).log_softmax(1)
        of_cells = torch.autograd.grad(said[:, :7].sum(), list(cells.values()))
    return found | {f"cells {site}": of.numpy() for site, of in zip(sites, of_cells, strict=True)}


def train_order(engine: Engine, site: str) -> TrainOrder:
    """With effects drawn at random, the same after every prompt, so that there is what to learn."""
    drawn = np.random.default_rng(1)
    weight = torch.from_numpy(drawn.normal(size=(site_width(engine, Site.parse(site)), 24)))
    words = ("happy", "sad", "hungry", "dog", "map", "roof", "price", "salt")
    return TrainOrder(
        base=Affine(weight.float(), torch.zeros(len(weight))).to_bytes(),
        site=site,
        vectors=drawn.normal(size=(3, 24)).astype(np.float32),
        spread=2.0,
        strength=0.5,
        prompts=("She was", "The old", "Nobody reads"),
        held_out=("The dog was", "Rain fell on"),
        words=words,
        effects=drawn.normal(size=(3, 2, 1, len(words))).astype(np.float32).repeat(5, axis=2),
        training=Training(rank=2, epochs=4, batch=2),
    )


def train_caches(engine: Engine) -> TrainedCaches:
    """A map drawn at random, of inputs drawn at random, looked at where it was taught."""
    drawn = torch.Generator().manual_seed(3)
    sites = caching.cell_sites(len(engine.blocks))
    widths = {site: site_width(engine, Site.parse(site)) for site in sites}
    left, right, bias = (
        torch.randn(*shape, generator=drawn) for shape in ((sum(widths.values()), 4), (4, 6), (1,))
    )
    by = CacheMap(
        {"some": Reduction(torch.zeros(6), torch.ones(6))},
        LowRank(left, right, bias.expand(len(left)).contiguous()),
        widths,
    )
    lessons = [
        Lesson(
            np.arange(5 + at, 19 + at),
            cached=8,
            own=1,
            inputs=torch.randn(8, 6, generator=drawn).numpy(),
        )
        for at in range(4)
    ]
    training = CacheTraining(learning_rate=0.05, batch=2, epochs=3, patience=3)
    return train_cache_map(engine, by.to_bytes(), lessons, lessons, training)


class Ranks:
    """Loads one model after another over the ranks of one world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def answers(self, checkpoint: Path, held: Any, texts: tuple[str, ...]) -> Answers:
        return answers(load(checkpoint, held=held, world=self.world), texts)

    def essentials(self, checkpoint: Path, texts: tuple[str, ...], sites: list[str]) -> Answers:
        engine = load(checkpoint, held="sharded", world=self.world)
        return essentials(engine, texts, sites)

    def gradients(self, checkpoint: Path, kinds: tuple[str, ...]) -> Answers:
        return gradients(load(checkpoint, held="sharded", world=self.world), kinds)

    def trained(self, checkpoint: Path, held: Any, site: str) -> TrainedMap:
        engine = load(checkpoint, held=held, world=self.world)
        return train_map(engine, train_order(engine, site))

    def trained_caches(self, checkpoint: Path) -> TrainedCaches:
        return train_caches(load(checkpoint, held="sharded", world=self.world))

    def adapted(self, checkpoint: Path) -> int:
        return len(places(load(checkpoint, held="sharded", world=self.world)))

    def backend(self) -> str:
        from deepspeed import comm

        return f"{comm.get_world_size()} ranks over {torch.distributed.get_backend()}"


@pytest.fixture(scope="module")
def ranks() -> Iterator[Gang]:
    with session("local", num_cpus=3, object_store_mib=200):
        gang = Gang.launch(Ranks, name="ranks", ranks=2, num_cpus=1, patience=120)
        try:
            yield gang
        finally:
            gang.stop()


def assert_same(sharded: Answers, whole: Answers) -> None:
    assert sorted(sharded) == sorted(whole)
    for name, own in whole.items():
        assert sharded[name].shape == own.shape, name
        error = np.abs(sharded[name] - own).max() / np.abs(own).max()
        assert error <= RELATIVE, f"{name}: {error:.1e}"


def test_the_families_that_can_be_cut_are_the_ones_tested() -> None:
    shardable = {name for name, family in ARCHITECTURES.items() if family.shardable}
    assert {case.partition("_yarn")[0] for case in SHARDED} == shardable


@pytest.mark.parametrize("case", SHARDED)
def test_a_model_cut_up_is_the_model_in_one_process(
    ranks: Gang, checkpoint: Callable[[str], Path], case: str, sentences: tuple[str, ...]
) -> None:
    where = checkpoint(case)
    assert_same(ranks.call("answers", where, "sharded", sentences), answers(load(where), sentences))
    assert ranks.call("backend") == "2 ranks over gloo"


def test_no_adapter_is_put_on_a_model_cut_up(
    ranks: Gang, checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(
        PartError, match=r"^adapters are put on models that one process holds whole"
    ):
        ranks.call("adapted", checkpoint("llama"))


@pytest.fixture(scope="module")
def biased(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with a bias wherever its family can have one."""
    where, llama = tmp_path_factory.mktemp("biased"), checkpoint("llama")
    for file in llama.iterdir():
        (where / file.name).write_bytes(file.read_bytes())
    config = json.loads((llama / "config.json").read_text())
    config |= {"attention_bias": True, "mlp_bias": True}
    (where / "config.json").write_text(json.dumps(config))
    weights = load_file(llama / "model.safetensors")
    drawn = torch.Generator().manual_seed(7)
    for name, weight in list(weights.items()):
        if "_proj." in name:
            bias = 0.3 * torch.randn(len(weight), generator=drawn)
            weights[name.replace("weight", "bias")] = bias
    save_file(weights, where / "model.safetensors", {"format": "pt"})
    return where


@pytest.mark.parametrize("case", [*SHARDED, "biased"])
def test_gradients_through_a_model_cut_up_are_those_of_one_process(
    ranks: Gang, checkpoint: Callable[[str], Path], biased: Path, case: str
) -> None:
    where = biased if case == "biased" else checkpoint(case)
    assert_same(ranks.call("gradients", where, INJECTED), gradients(load(where), INJECTED))


@pytest.mark.parametrize("case", ["gemma", "mixtral", "qwen2", "biased"])
@pytest.mark.parametrize("site", ["residual.1", "values.1"])
def test_a_map_trained_through_a_model_cut_up_is_that_of_one_process(
    ranks: Gang, checkpoint: Callable[[str], Path], biased: Path, case: str, site: str
) -> None:
    where = biased if case == "biased" else checkpoint(case)
    whole = load(where)
    own = train_map(whole, train_order(whole, site))
    found = ranks.call("trained", where, "sharded", site)
    assert own.improved
    assert found.losses == pytest.approx(own.losses, rel=RELATIVE)
    assert found.held_out == pytest.approx(own.held_out, rel=RELATIVE)
    maps = (map_from_bytes(each.map).tensors() for each in (found, own))
    assert_same(*({"weight": tensors["weight"].numpy()} for tensors in maps))


@pytest.mark.parametrize("case", ["gemma3_text", "llama", "qwen2_moe"])
def test_a_map_of_caches_trained_through_a_model_cut_up_is_that_of_one_process(
    ranks: Gang, checkpoint: Callable[[str], Path], case: str
) -> None:
    where = checkpoint(case)
    own, found = train_caches(load(where)), ranks.call("trained_caches", where)
    assert own.improved
    assert found.held_out == pytest.approx(own.held_out, rel=RELATIVE)
    maps = (CacheMap.from_bytes(each.map).map.tensors() for each in (found, own))
    assert_same(*({name: of.numpy() for name, of in tensors.items()} for tensors in maps))


def test_nothing_is_trained_through_a_model_that_is_offloaded(
    ranks: Gang, checkpoint: Callable[[str], Path]
) -> None:
    said = r"^no gradients go through a model that is offloaded: .*; hold it whole or sharded\Z"
    with pytest.raises(ValueError, match=said):
        ranks.call("trained", checkpoint("llama"), "offloaded", "residual.1")


@pytest.mark.parametrize("case", ["llama", "mixtral", "phi3"])
def test_a_model_offloaded_is_the_model_in_one_process_to_the_bit(
    ranks: Gang, checkpoint: Callable[[str], Path], case: str, sentences: tuple[str, ...]
) -> None:
    where = checkpoint(case)
    found, own = (
        ranks.call("answers", where, "offloaded", sentences),
        answers(load(where), sentences),
    )
    assert_same(found, own)
    # The head is asked for all words at once, which rounds otherwise.
    passed = [name for name in own if "." in name or name.startswith("cached")]
    assert all(np.array_equal(found[name], own[name]) for name in passed)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("phi3", "phi3 models cannot be cut over 2 ranks; those that can: gemma, "),
        ("olmo2", "olmo2 models cannot be cut over 2 ranks; those that can: gemma, "),
    ],
)
def test_a_family_that_cannot_be_cut_is_refused_in_one_line(
    ranks: Gang, checkpoint: Callable[[str], Path], case: str, said: str
) -> None:
    with pytest.raises(ValueError, match="cannot be cut") as caught:
        ranks.call("answers", checkpoint(case), "sharded", ("One.",))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("case", "shared_out"), [("mixtral", True), ("qwen2_moe", False)])
def test_a_router_is_read_as_it_chose(
    checkpoint: Callable[[str], Path], case: str, shared_out: bool
) -> None:
    engine = load(checkpoint(case))
    with torch.inference_mode():
        ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
        own = engine.model(ids, output_router_logits=True).router_logits[1]
    with reading.reading(engine, [Site("router", 1)]) as found:
        engine.states(ids)
    decision = found[Site("router", 1)]
    assert decision.shape == (2, 4, 4)
    chosen = own.softmax(-1).topk(engine.model.config.num_experts_per_tok)
    weights = torch.zeros_like(own).scatter(1, chosen.indices, chosen.values)
    if shared_out:  # among those that were chosen; Qwen's are left as they are
        weights /= weights.sum(1, keepdim=True)
    torch.testing.assert_close(decision.flatten(0, 1), weights)
    added = Injection("router.1", np.ones(4, np.float32), 1.0)
    refused = pytest.raises(
        SiteError, match=r"^injection at router\.1: a router's decision can only"
    )
    with refused, injecting(engine, [added]):
        pass


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["smollm2-135m-instruct", pytest.param("gemma-3-270m", marks=pytest.mark.long)]
)
def test_a_real_model_cut_up_is_the_model_in_one_process(ranks: Gang, name: str) -> None:
    """Nine query heads and three KV heads; four query heads and one KV head, which one rank has."""
    texts = ("The ferry crosses the narrow strait twice a day.", "Nobody had told the gardener.")
    where = prepare(spec(find(name)), default_cache())
    whole = load(where)
    sites = [f"{kind}.{len(whole.blocks) // 2}" for kind in INJECTED]
    own = essentials(whole, texts, sites)
    found = ranks.call("essentials", where, texts, sites)
    assert_same(found, own)
