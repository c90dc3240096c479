"""The tables of docs/matrix.md, from what `benchmarks.fleet` has recorded.

python -m benchmarks.fleet_tables
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.record import RESULTS

NAMES = {
    "smollm2-135m-instruct": "SmolLM2",
    "gemma-3-270m": "Gemma",
    "smollm2-upscaled": "deeper",
    "smollm2-sparse": "sparse",
}
CARGOS = {"steering": "vector", "kv_cache": "cache", "lora": "adapter", "soft_prompt": "latents"}
READING = "reading caches, "  # how the stages of pairs begin
STAGES = 12  # the longest ones
Figures = Mapping[str, Any]


def main() -> None:
    """Print them."""
    print("\n\n".join(tables(json.loads((RESULTS / "fleet.json").read_text())["runs"]["fleet"])))


def tables(run: Figures) -> list[str]:
    """In Markdown: what crosses, routes of each cargo that are best, least and in the middle, what
    could be foretold, and the longest stages."""
    routed = [[of for of in run["routes"] if of["cargo"] == cargo] for cargo in CARGOS]
    return [
        _crossing(run["cargos"]),
        *(_routes(of) for of in routed if of),
        _foretold(run["foretold"]),
        _stages(run["seconds"]),
    ]


def _crossing(cargos: Figures) -> str:
    by_cargo = {name.partition(",")[0]: of for name, of in cargos.items()}
    kept = [by_cargo[cargo] for cargo in CARGOS]
    rows = [
        [_path(pair.split(" -> ")), *(_interval(of["each"][pair]) for of in kept)]
        for pair in kept[0]["each"]
    ]
    rows.append(["**median**", *(_two(of["median_retention"]) for of in kept)])
    rows.append(["worst control, median", *(_two(of["worst_control_median"]) for of in kept)])
    return _table(["from → into", *CARGOS.values()], rows)


def _routes(routes: Sequence[Figures]) -> str:
    """Those that are recommended, the one in the middle, and the one that is worst."""
    order = sorted(routes, key=lambda of: -of["gain"]["value"])
    won = [of for of in order if of["recommended"]]
    others = [of for of in order if not of["recommended"]]
    rows = [
        [
            _path(of["path"]) + (", recommended" if of["recommended"] else ""),
            *(_interval(of[what]) for what in ("direct", "routed", "gain")),
        ]
        for of in (*won, *others[len(others) // 2 : -1][:1], *others[-1:])
    ]
    return _table(["path", "direct", "through others", "more"], rows)


def _foretold(foretold: Figures) -> str:
    rows = [
        [cargo, known, _interval(of["spearman"]), _two(of["off_by"]), _two(of["mean_off_by"])]
        for cargo, by in foretold.items()
        for known, of in by.items()
        if of["spearman"]
    ]
    heads = ["cargo", "known beforehand", "Spearman", "line is off by", "mean is off by"]
    return _table(heads, rows)


def _stages(seconds: Mapping[str, float]) -> str:
    pairs = sum(of for stage, of in seconds.items() if stage.startswith(READING))
    each = {stage: of for stage, of in seconds.items() if not stage.startswith(READING)}
    whole = each.pop("in all")
    each["reading caches and fitting their maps, six pairs"] = pairs
    longest = sorted(each.items(), key=lambda of: -of[1])[:STAGES]
    rows = [[stage, f"{of:.0f}"] for stage, of in (*longest, ("in all", whole))]
    return _table(["stage", "seconds"], rows)


def _path(names: Iterable[str]) -> str:
    return " → ".join(NAMES[name] for name in names)


def _two(value: float) -> str:
    return f"{value:.2f}"


def _interval(of: Mapping[str, float] | None) -> str:
    return "none" if of is None else f"{of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    whole = [f"| {' | '.join(line)} |" for line in (heads, *rows)]
    return "\n".join([whole[0], "|---" * len(heads) + "|", *whole[1:]])


if __name__ == "__main__":
    main()
