"""What is said to who pulls a map: how to use its files without any code of ours."""

from collections.abc import Mapping

from pydantic import JsonValue

_README = """\
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
    return _README.format(**_USES[kind], **facts)
