"""The cell of latents, out of how well every item of a skill is done by who reads them."""

import math
from collections.abc import Mapping

from evaluation.cells import PromptCell
from evaluation.retention import level
from evaluation.skill import UNITS
from evaluation.trained_ways import BASE, NATIVE, Effort, Judging

RELAY = "text relay"
BYTES = "bytes"  # of the text, that no model has read


def prompt_cell(
    source: str,
    target: str,
    judging: Judging,
    efforts: Mapping[str, Effort],
    *,
    way: str,
    site: str,
    count: int,
    learned: int,
    parameters: int,
    map_bytes: int,
    map_address: str,
) -> PromptCell:
    """What the target does with `count` latents in place of texts; every item counts alike.

    Args:
        judging: on test items also with the text relayed, and of controls.
        efforts: of the native prompt, and of each way.
        way: the one that held items chose.
        learned: how many numbers the target's own adapter has, of `parameters` that the target has.

    Raises:
        RetentionError: fewer than two items, or scores that are not finite.
    """
    carried, native = judging.measure(way), efforts[NATIVE]
    return PromptCell(
        source=source,
        target=target,
        concept=judging.skill.name,
        way=way,
        level=level(carried.retention),
        retention=carried.retention,
        base=carried.base,
        native=carried.native,
        carried=carried.carried,
        controls=judging.controls(
            name for name in judging.test if name not in {BASE, RELAY, BYTES, *efforts}
        ),
        held_out_r2=math.nan,
        map_bytes=map_bytes,
        map_address=map_address,
        site=site,
        unit=UNITS[judging.skill.measure],
        count=count,
        items=len(judging.test[BASE]),
        ways=tuple(judging.way(name, of) for name, of in efforts.items() if name != NATIVE),
        relay=judging.share(RELAY),
        of_bytes=judging.share(BYTES) if BYTES in judging.test else None,
        learned=learned,
        parameters=parameters,
        native_tokens=native.tokens,
        native_seconds=native.seconds,
    )
