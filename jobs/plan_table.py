"""A plan on a terminal."""

from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.pool import Holding
from jobs.footprint import LOAD_BYTES_PER_SECOND
from jobs.plan import CORE_FLOPS, GPU_SHARE, ModelPlan, Placement, RunPlan
from jobs.table import gib


def plan_tables(plan: RunPlan) -> RenderableType:
    """What is loaded, what is read, what that takes here and on the nodes of ray_cluster.yaml."""
    tables = (_models(plan), _reading(plan), _here(plan), _nodes(plan), _on_each_gpu(plan))
    return Group(*tables, Text(_assumptions(plan)))


def _models(plan: RunPlan) -> Table:
    table = Table(title=f"{plan.run.name}: what is loaded", title_justify="left")
    table.add_column("model", overflow="fold")
    for column in ("parameters", "precision", "weights", "layers", "width"):
        table.add_column(column, justify="right")
    table.add_column("from", overflow="fold")
    sizes = {process.name: process.parts for process in plan.processes}
    for each in plan.models:
        table.add_row(
            each.spec.name,
            f"{each.blueprint.parameters / 1e6:,.0f} M",
            each.spec.dtype,
            gib(sizes[f"host-{each.spec.name}"]["weights"]),
            str(each.blueprint.layers),
            str(each.blueprint.width),
            _source(each),
        )
    return table


def _source(model: ModelPlan) -> str:
    kind, _, rest = model.spec.source_line().partition(" ")
    where = rest if kind in ("hub", "directory") else ""
    return f"{kind} {where}".strip(" ,") + ("" if model.here else "\n[dim]not here yet[/]")


def _reading(plan: RunPlan) -> Table:
    title = "tokens read by each model (each anchor once, whatever the number of pairs)"
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for each in plan.models:
        table.add_column(each.spec.name, justify="right", overflow="fold")
    for stages in zip(*(each.readings for each in plan.models), strict=True):
        table.add_row(stages[0].stage, *(f"{stage.tokens:,.0f}" for stage in stages))
    table.add_section()
    table.add_row("in all", *(f"{each.tokens:,.0f}" for each in plan.models))
    table.add_row("time here, at least", *(_time(each.seconds_here) for each in plan.models))
    return table


def _here(plan: RunPlan) -> Table:
    table = Table(title="peak memory on this machine", title_justify="left")
    table.add_column("process", overflow="fold")
    table.add_column("peak", justify="right")
    table.add_column("of which", overflow="fold")
    for process in plan.processes:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in process.parts.items())
        table.add_row(process.name, gib(process.total), parts)
    table.add_section()
    fits = plan.peak <= plan.memory
    verdict = f"fits in {gib(plan.memory)}" if fits else f"does not fit in {gib(plan.memory)}"
    style = "green" if fits else "red"
    table.add_row("in all", gib(plan.peak), f"[{style}]{verdict}[/]")
    table.add_row("time, at least", _time(plan.seconds_here), f"on {plan.cores} cores")
    return table


def _nodes(plan: RunPlan) -> Table:
    table = Table(title="on the nodes of ray_cluster.yaml", title_justify="left")
    for column in ("type", "instance"):
        table.add_column(column)
    table.add_column("where each model goes, or why not", overflow="fold")
    for column in ("nodes", "time", "cost"):
        table.add_column(column, justify="right")
    for each in plan.placements:
        if each.why_not is not None:
            table.add_row(each.node.name, each.node.instance, f"[red]no:[/] {each.why_not}")
            continue
        cost = f"${each.usd:,.2f}"
        figures = (str(each.nodes), _time(each.seconds), cost)
        table.add_row(each.node.name, each.node.instance, _spread(each), *figures)
    return table


def _on_each_gpu(plan: RunPlan) -> Table:
    """One row for each way in which a model is divided on some type of node."""
    table = Table(title="bytes on each GPU", title_justify="left")
    table.add_column("model", overflow="fold")
    for column in ("GPUs", "weights", "KV cache", "activations", "in all"):
        table.add_column(column, justify="right")
    rows = {
        (name, each.gpus): each
        for placed in plan.placements
        for name, each in placed.spread.items()
    }
    for (name, gpus), each in sorted(rows.items()):
        parts = (each.weights, each.cache, each.batch, each.total)
        table.add_row(name, str(gpus), *map(gib, parts))
    fits = max(process.parts.get("fits", 0) for process in plan.processes)
    table.caption = f"moments stay with the folders, on CPUs: {gib(fits)}"
    table.caption_justify = "left"
    return table


def _spread(placement: Placement) -> str:
    holdings = placement.holdings.values()
    waves = f"; in {len(placement.waves)} waves" if len(placement.waves) > 1 else ""
    if not any(each.num_gpus for each in holdings):
        return f"on cores{waves}"
    return "; ".join(_where(each, placement) for each in holdings) + waves


def _where(holding: Holding, placement: Placement) -> str:
    where = f"{holding.name} on {holding.ranks} {placement.node.gpu}"
    # Its time is not known: no pass through host memory was measured.
    slower = ", weights in host memory: many times slower than said"
    return where + (slower if holding.held == "offloaded" else "")


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _assumptions(plan: RunPlan) -> str:
    probed = plan.models[0].speed.probed
    assumed = f"{CORE_FLOPS / 1e9:g} GFLOP/s a core assumed (--probe measures it)"
    here = f"speed here: {'probed' if probed else assumed}"
    prices = max(each.node.as_of for each in plan.placements)
    return (
        f"estimates. {here}; on GPUs {GPU_SHARE:.0%} of the peak assumed, loading at "
        f"{LOAD_BYTES_PER_SECOND / 1e9:g} GB/s; prices on demand, the newest of {prices}"
    )
