"""What derived models of SmolLM2 are worth: twins against their base, the others in bits.

Asked for: logits of a twin equal to its base's to 1e-4; copied experts with noise of 0.1 near 1.46
bits per character where the base has 1.38; the healed up-scaled model within 15 % of the base. What
is judged is the test part of the corpora that healing learnt from, and one that it did not.

    python -m benchmarks.derived_models
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actors.catalog import Derivation, ModelSpec
from actors.checkpoints import facts
from actors.derived.upscaled import HEALING
from actors.engine import Engine, load
from actors.weights import default_cache, prepare
from benchmarks.record import record
from benchmarks.texts import LEARNT, UNSEEN, bits_per_character, texts
from jobs.config import read_run_file
from jobs.names import ROOT

RUN_FILE = Path("configs/demo.yaml")
TWINS = ("rotated", "permuted", "deeper", "sparse")
DERIVED: dict[str, tuple[str, dict[str, bool | int | float]]] = {
    "sparse, noise 0.1": ("sparse", {"noise": 0.1}),
    "upscaled, unhealed": ("upscaled", {"drop": 8}),
    "upscaled, healed": ("upscaled", {"drop": 8, "healed": True}),
}
TEXTS = 60  # of a corpus
COMPARED = 8  # texts whose logits are compared
THREADS = 2


def main() -> None:
    """Measure and record."""
    base = read_run_file(ROOT / RUN_FILE).models[0]
    judged = {name: texts(corpus, "test")[:TEXTS] for name, corpus in (LEARNT | UNSEEN).items()}
    compared = judged["lambada"][:COMPARED]
    engine = _live(base)
    found = {"base": _bits(engine, judged)}
    wanted, exact = _logits(engine, compared), _logits(_in_float64(engine), compared)
    sizes = {"base": _sizes(base)}
    twins = {}
    for recipe in TWINS:
        spec = _spec(base, recipe, {})
        sizes[recipe] = _sizes(spec)
        twin = _live(spec)
        twins[recipe] = {
            "in_float32": _difference(wanted, _logits(twin, compared)),
            "in_float64": _difference(exact, _logits(_in_float64(twin), compared)),
        }
        print(recipe, twins[recipe], flush=True)
    for name, (recipe, options) in DERIVED.items():
        spec = _spec(base, recipe, options)
        sizes[name] = _sizes(spec)
        found[name] = _bits(_live(spec), judged)
        print(name, found[name], flush=True)
    record(
        "derived_models",
        {
            "base": base.name,
            "asked": {
                "twins": "logits equal to 1e-4",
                "sparse, noise 0.1": "about 1.46 bits per character against 1.38",
                "upscaled, healed": "bits per character <= 1.15 x the base's",
            },
            "texts": {name: len(each) for name, each in judged.items()},
            "corpora_healing_learnt_from": list(LEARNT),
            "corpora_unseen_by_healing": list(UNSEEN),
            "largest_difference_of_logits": {
                "base, float32 to float64": _difference(exact, wanted),
                **twins,
            },
            "logits_of_the_base": {
                "largest": round(max(float(one.abs().max()) for one in exact), 2),
                "standard_deviation": round(float(torch.cat(exact).std()), 2),
            },
            "bits_per_character": found,
            "times_the_base": {
                name: {
                    corpus: round(cost["value"] / found["base"][corpus]["value"], 4)
                    for corpus, cost in costs.items()
                }
                for name, costs in found.items()
            },
            "sizes": sizes,
            "healing_bytes": sum(file.stat().st_size for file in HEALING.glob("*.safetensors")),
        },
    )


def _spec(base: ModelSpec, recipe: str, options: dict[str, bool | int | float]) -> ModelSpec:
    return ModelSpec(name=recipe, derived=Derivation(base=base, recipe=recipe, options=options))


def _live(spec: ModelSpec) -> Engine:
    return load(prepare(spec, default_cache(), print), threads=THREADS)


def _bits(engine: Engine, judged: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    return {corpus: bits_per_character(engine, each) for corpus, each in judged.items()}


def _sizes(spec: ModelSpec) -> dict[str, int]:
    known = facts(prepare(spec, default_cache(), print), spec.name)
    return {"layers": known.layers, "parameters": known.parameters}


@torch.inference_mode()
def _logits(engine: Engine, compared: list[str]) -> list[Tensor]:
    """Of every token of each text, [t, v]."""
    model: Any = engine.model
    read = (engine.tokenizer(text, return_tensors="pt")["input_ids"] for text in compared)
    return [model(ids, use_cache=False).logits[0] for ids in read]


def _in_float64(engine: Engine) -> Engine:
    """The same engine: what is left of a difference then is not the rounding of a pass."""
    engine.model.double()
    if hasattr(engine.model.config, "num_local_experts"):
        engine.model.set_experts_implementation("eager")  # the other one has no float64
    return engine


def _difference(wanted: list[Tensor], given: list[Tensor]) -> float:
    pairs = zip(wanted, given, strict=True)
    return float(f"{max(float((one - other).abs().max()) for one, other in pairs):.2g}")


if __name__ == "__main__":
    main()
