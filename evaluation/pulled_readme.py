"""What is said to who pulls a map: how to use its files without any code of ours."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

LOADERS = {  # by the file that says its kind: what MLflow runs to load it
    "map.json": "pulled.py",
    "cache_map.json": "pulled_cache.py",
    "adapter_config.json": "pulled_adapter.py",
    "latents.safetensors": "pulled_latents.py",
}

_STEERING = """\
{name}, version {version}: {cargo} ({concept}) carried from {source} into {target} ({way}).
Add {strength:g} times the vector at every position of {site} of the target.

Any Python with torch and safetensors, started in this directory, can use the files:

    from safetensors.torch import load_file
    from torch.nn.functional import gelu
    of = load_file("artifacts/cargo/map.safetensors")
    weight, bias = {weight}, of["bias"]  # {shapes}
    vector = load_file("artifacts/cargo/vector.safetensors")["vector"]  # [target]
    transform = lambda points: {transform}  # points [n, source]
    pushforward = lambda directions: directions @ {slopes}.T  # differences: no bias

With mlflow as well: mlflow.pyfunc.load_model(".").unwrap_python_model().pushforward(directions)
What was measured of it is in artifacts/cargo/cargo.json.
"""

_CACHE = """\
{name}, version {version}: {cargo} ({concept}) carried from {source} into {target}.
Of what {source} caches of a token it makes what {target} does: keys without their position, and
values, of every layer.

Any Python with torch and safetensors, started in this directory, can use the files:

    import json, torch
    from safetensors import safe_open
    from safetensors.torch import load_file
    path = "artifacts/cargo/cache_map.safetensors"
    of = {{name: tensor.float() for name, tensor in load_file(path).items()}}
    record = json.loads(safe_open(path, "pt").metadata()["isthmus"])
    pieces = [("", record)] if record["writes"] else []
    pieces += [(f"near.{{site}}.", piece) for site, piece in record["near"].items()]

    def transform(inputs):  # [tokens, width] by name, to [tokens, width] by site
        cells = {{}}
        for at, piece in pieces:
            parts = []
            for name in piece["reads"]:
                near = (inputs[name] - of[at + "mean." + name]) * of[at + "scale." + name]
                basis = of.get(at + "basis." + name)
                parts.append(near if basis is None else near @ basis.T)
            x = torch.cat(parts, -1)
            for name in ("weight", "right", "left"):
                x = x @ of[at + "map." + name].T if at + "map." + name in of else x
            sites, widths = zip(*piece["writes"])
            cells.update(zip(sites, (x + of[at + "map.bias"]).split(widths, -1)))
        return cells

A token of {target} reads the cells of the token of {source} that covers its last character; what
is called own is its own embedding. The first token must be the target's own, not a carried one.

With mlflow as well: mlflow.pyfunc.load_model(".").predict(inputs), arrays by name to arrays by site
What was measured of it is in artifacts/cargo/cargo.json.
"""

_ADAPTER = """\
{name}, version {version}: {cargo} ({concept}) carried from {source} into {target} ({way}).
An adapter of {target}, of rank {rank}, as PEFT keeps them. Any Python with peft, started in this
directory, puts it on:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("PATH OR NAME OF {target}")
    model = PeftModel.from_pretrained(model, "artifacts/cargo")

With mlflow as well: mlflow.pyfunc.load_model(".").predict(read), what layers read by layer, to what
is added to what they return.
What was measured of it is in artifacts/cargo/cargo.json.
"""

_LATENTS = """\
{name}, version {version}: {cargo} ({concept}) carried from {source} into {target}.
Of what {source} holds of a text it makes {count} rows that {target} reads in place of the text, as
inputs_embeds.

With mlflow, torch and safetensors, started in this directory:

    import mlflow
    rows = mlflow.pyfunc.load_model(".").predict({{"text": held}})["text"]

held is an array [tokens, width] of the residual stream of {source} at {site}. What follows them in
{target} is the form in which the skill is asked for.
What was measured of it is in artifacts/cargo/cargo.json.
"""

# How the files of each kind of map are used.
_LINEAR = {
    "shapes": "[target, source], [target]",
    "transform": "points @ weight.T + bias",
    "slopes": "weight",
}
_USES = {
    "affine": {**_LINEAR, "weight": 'of["weight"]'},
    "low_rank": {**_LINEAR, "weight": 'of["left"] @ of["right"]'},
    "network": {
        **_LINEAR,
        "weight": 'of["weight"]',
        "transform": "points @ weight.T + bias "
        '+ gelu(points @ of["inner"].T + of["inner_bias"]) @ of["outer"].T',
        "slopes": '(weight + of["outer"] * of["slope"] @ of["inner"])',
    },
    "mixture": {
        "weight": 'of["weight"]',
        "shapes": "[experts, target, source], [experts, target]",
        "transform": '((points @ of["gate"].T + of["gate_bias"]).softmax(-1)[..., None] '
        "* ((weight @ points[..., None, :, None])[..., 0] + bias)).sum(-2)",
        "slopes": 'of["slope"]',
    },
}


def how_to_use(file: Path, facts: Mapping[str, JsonValue]) -> str:
    """The README of a pulled map, cache, adapter or latents; `file` is what says its kind, `facts`
    are those of `cell_facts`, and its name and version."""
    kind = file.stem
    if file.suffix == ".json":
        said = json.loads(file.read_text())
        kind = said.get("kind") or said["peft_type"].lower()
    if kind == "cache":
        return _CACHE.format(**facts)
    if kind == "lora":
        return _ADAPTER.format(**facts)
    if kind == "latents":
        return _LATENTS.format(**facts)
    return _STEERING.format(**_USES[kind], **facts)
