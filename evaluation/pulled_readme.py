"""What is said to who pulls a map: how to use its files without any code of ours."""

from collections.abc import Mapping

from pydantic import JsonValue

_STEERING = """\
{name}, version {version}: {cargo} ({concept}) carried from {source} into {target}.
Add {strength:g} times the vector at every position of {site} of the target.

Any Python with torch and safetensors, started in this directory, can use the files:

    from safetensors.torch import load_file
    from torch.nn.functional import gelu
    of = load_file("artifacts/cargo/map.safetensors")
    weight, bias = {weight}, of["bias"]  # [target, source], [target]
    vector = load_file("artifacts/cargo/vector.safetensors")["vector"]  # [target]
    transform = lambda points: points @ weight.T + bias{more}  # points [n, source]
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
    times = lambda x, basis: x * basis if basis.ndim == 1 else x @ basis.T
    part = lambda name, x: times(x - of["mean." + name], of["basis." + name])
    reduced = lambda inputs: torch.cat([part(n, inputs[n]) for n in record["reads"]], -1)
    factors = [of[n] for n in ("map.weight", "map.right", "map.left") if n in of]
    chain = lambda x, *left: chain(x @ left[0].T, *left[1:]) if left else x + of["map.bias"]
    sites, widths = zip(*record["writes"])
    cells = lambda x: dict(zip(sites, chain(x, *factors).split(widths, -1)))
    transform = lambda inputs: cells(reduced(inputs))  # [tokens, width] by name, and by site

A token of {target} reads the cells of the token of {source} that covers its last character; what
is called own is its own embedding. The first token must be the target's own, not a carried one.

With mlflow as well: mlflow.pyfunc.load_model(".").predict(inputs), arrays by name to arrays by site
What was measured of it is in artifacts/cargo/cargo.json.
"""

# How the files of each kind of map are used.
_USES = {
    "affine": {"weight": 'of["weight"]', "more": "", "slopes": "weight"},
    "low_rank": {"weight": 'of["left"] @ of["right"]', "more": "", "slopes": "weight"},
    "network": {
        "weight": 'of["weight"]',
        "more": ' + gelu(points @ of["inner"].T + of["inner_bias"]) @ of["outer"].T',
        "slopes": '(weight + of["outer"] * of["slope"] @ of["inner"])',
    },
}


def how_to_use(kind: str, facts: Mapping[str, JsonValue]) -> str:
    """The README of a pulled map of this kind; `facts` are those of `cell_facts`, and its name and
    version."""
    if kind == "cache":
        return _CACHE.format(**facts)
    return _STEERING.format(**_USES[kind], **facts)
