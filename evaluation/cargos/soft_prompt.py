"""What is known of latents that were read in place of texts, out of how well every item is done."""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from evaluation.cells import Said, TrainedCell
from evaluation.flat import Own, bounds, plain
from evaluation.retention import Interval, level
from evaluation.skill import UNITS
from evaluation.trained_ways import BASE, NATIVE, Effort, Judging
from evaluation.wording import spelt

RELAY = "text relay"
BYTES = "bytes"  # of the text, that no model has read


class PromptCell(TrainedCell):
    """Texts that the target reads as `count` latents of what the source holds of them, judged by a
    skill on test items, in `unit`.

    `site` is where the source is read. The target alone is asked without the text. Native is a
    prompt of as many rows, taught by the same lessons (`native_tokens` of them), before the text as
    it is. `way` is the one of `ways` that held items chose. `relay` is what is kept where the
    target, with that prompt, reads no more of the text than as many tokens, and `of_bytes` where
    latents are made of the text's bytes, which no model has read. The adapter of the target has
    `learned` numbers, and the target itself `parameters`.
    """

    said: ClassVar = Said(
        "latents", "Latents", "what the target makes of the texts themselves", "skills"
    )
    cargo: Literal["soft_prompt"] = "soft_prompt"
    site: str
    count: int
    relay: Interval | None
    of_bytes: Interval | None = None
    learned: int
    parameters: int

    def own(self) -> Own:
        sizes = {
            "count": self.count,
            "items": self.items,
            "learned": self.learned,
            "parameters": self.parameters,
        }
        metrics = {
            **{name: float(size) for name, size in sizes.items()},
            **self.effort(),
            **bounds("relay", self.relay),
            **bounds("of_bytes", self.of_bytes),
        }
        return Own(
            files=("latents.safetensors",),
            facts={
                **sizes,
                "site": self.site,
                "unit": self.unit,
                "relay": plain(self.relay),
                "of_bytes": plain(self.of_bytes),
            },
            tags={"site": self.site},
            metrics=metrics,
        )

    def evidence(self) -> Iterator[str]:
        """What each way keeps, and what as many tokens of the text do."""
        for way in self.ways:
            yield f"{way.name} {spelt(way.retention)}"
        yield f"the first {self.count} tokens of the text {spelt(self.relay)}"
        if self.of_bytes is not None:
            yield f"latents of bytes, without a source {spelt(self.of_bytes)}"
        yield f"without the text {self.base.value:.3f}, native {self.native.value:.3f}"
        yield self.unit
        yield f"the adapter of the target is {self.learned / self.parameters:.2%} of its weights"


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
