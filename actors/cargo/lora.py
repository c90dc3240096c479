"""LoRA adapters as PEFT keeps them, and as what they change at each place of a model.

Shapes: o and i what a layer returns and reads, r rank.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file
from torch import Tensor

from actors.cargo.peft_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AdapterError,
    matrix,
    read_config,
    read_tensors,
)
from actors.matrices import Rows
from alignment.updates import Update

_START, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# What PEFT can add to a plain LoRA, as it is where it is left out. No such thing is carried.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none",),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_qalora": (False, None),
    "use_bdlora": (None,),
    "alora_invocation_tokens": (None, []),
    "kasa_config": (None,),
    "monteclora_config": (None,),
}
# Ways to begin that change the model's own weights: the adapter is none of the model as it was.
_REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, eq=False)
class Adapter:
    """What is added at each place of a model, as `queries.3`; the scale of PEFT is in it.

    `base` is what the file calls the model it was made for.
    """

    updates: Mapping[str, Update]
    base: str | None = None

    @property
    def rank(self) -> int:
        """The largest of all places."""
        return max(each.rank for each in self.updates.values())


def read_adapter(directory: Path, places: Mapping[str, Rows]) -> Adapter:
    """A PEFT directory, for a model with these places.

    Raises:
        AdapterError: it is damaged, pickled, no plain LoRA, or not of such a model.
    """
    config = _config(directory)
    by_module = _by_module(places)
    wrapped = _wrapped(config, by_module)
    stored = _named(read_tensors(directory), _names(wrapped))
    modules = _modules(directory, stored)
    for module in (*wrapped, *_targeted(directory, config, by_module)):
        if module not in modules:
            raise AdapterError(
                f"{directory}: {CONFIG_FILE} says that {module} is changed, and {WEIGHTS_FILE} has "
                "nothing of it"
            )
    updates = {}
    for module in modules:
        if module not in by_module:
            raise AdapterError(
                f"{directory}: it changes {module}, which is no layer of the model that can be "
                f"carried from; those are like {next(iter(by_module))}"
            )
        down, up = (
            matrix(directory, f"{module}{end}", stored[f"{_START}{module}{end}"])
            for end in (_DOWN, _UP)
        )
        if down.shape[0] != up.shape[1]:
            raise AdapterError(
                f"{directory}: {module} has rank {down.shape[0]} in lora_A, {up.shape[1]} in lora_B"
            )
        some = by_module[module]
        count = _experts(some)
        width = sum(len(each.rows) for each in some.values()) // count
        wanted = (width, next(iter(some.values())).inputs)
        if (len(up), down.shape[1]) != wanted:
            raise AdapterError(
                f"{directory}: {module} changes a layer of {down.shape[1]} to {len(up)} numbers, "
                f"and the model's is of {wanted[1]} to {wanted[0]}"
            )
        if len(down) % count:
            raise AdapterError(
                f"{directory}: {module} has rank {len(down)} over all of its {count} experts"
            )
        rank = len(down) // count
        if rank != (stated := _stated(config, "rank_pattern", "r", module)):
            raise AdapterError(
                f"{directory}: {module} has rank {rank}, and {stated} by {CONFIG_FILE}"
            )
        scale = _scale(directory, config, module, rank)
        # The rank of an expert is a run of rows in A, and every so manieth column in B.
        downs, ups = down.unflatten(0, (count, -1)), up.unflatten(1, (-1, count)).movedim(2, 0)
        for place, at in some.items():
            expert = at.expert or 0
            updates[place] = Update(scale * ups[expert, at.rows], downs[expert].contiguous())
    return Adapter(updates, config.get("base_model_name_or_path"))


def write_adapter(adapter: Adapter, places: Mapping[str, Rows], directory: Path, base: str) -> None:
    """As a PEFT directory, for the model with these places, which PEFT is to call `base`.

    Places of one layer that read the same keep their rank together; others lie side by side in it.
    """
    tensors, ranks, wrapped = {}, {}, []
    for module, some in _by_module(places).items():
        updates = {place: adapter.updates[place] for place in some if place in adapter.updates}
        if not updates:
            continue
        count = _experts(some)
        parts = [_of_expert(updates, some, expert) for expert in range(count)]
        ranks[module] = max(part.rank for part in parts)
        parts = [part.padded(ranks[module]) for part in parts]
        tensors[module, _DOWN] = torch.cat([part.down for part in parts])
        tensors[module, _UP] = torch.stack([part.up for part in parts], 2).flatten(1)
        if next(iter(some.values())).expert is not None:
            wrapped.append(module)
    most, names = max(ranks.values()), _names(wrapped)
    others = {module: rank for module, rank in ranks.items() if rank != most}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        r=most,
        lora_alpha=most,
        rank_pattern=others,
        alpha_pattern=dict(others),
        target_modules=sorted(ranks.keys() - wrapped),
        target_parameters=wrapped or None,
        inference_mode=True,
    )
    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(directory))
    kept = {
        f"{_START}{names.get(module, module)}{end}": each.contiguous()
        for (module, end), each in tensors.items()
    }
    save_file(kept, directory / WEIGHTS_FILE, {"format": "pt"})


def _by_module(places: Mapping[str, Rows]) -> dict[str, dict[str, Rows]]:
    """The places of each layer."""
    found: dict[str, dict[str, Rows]] = defaultdict(dict)
    for place, rows in places.items():
        found[rows.module][place] = rows
    return found


def _experts(places: Mapping[str, Rows]) -> int:
    """How many experts the places of one layer are of; one where it has none."""
    return 1 + max(each.expert or 0 for each in places.values())


def _of_expert(updates: Mapping[str, Update], places: Mapping[str, Rows], expert: int) -> Update:
    """One update of a layer, or of one expert of it, out of those of some of its places."""
    some = {place: at for place, at in places.items() if (at.expert or 0) == expert}
    width = sum(len(each.rows) for each in some.values())
    distinct: list[Tensor] = []
    ups: list[Tensor] = []
    for place, at in some.items():
        if place not in updates:
            continue
        update = updates[place]
        where = next((n for n, each in enumerate(distinct) if each.equal(update.down)), None)
        if where is None:
            where = len(distinct)
            distinct.append(update.down)
            ups.append(torch.zeros(width, update.rank))
        ups[where][at.rows] = update.up
    if not distinct:
        return Update(torch.zeros(width, 0), torch.zeros(0, next(iter(some.values())).inputs))
    return Update(torch.cat(ups, 1), torch.cat(distinct))


def _names(wrapped: Sequence[str]) -> dict[str, str]:
    """What PEFT calls parameters of experts that are changed: each wrapper holds the one before."""
    of_module: dict[str, list[str]] = defaultdict(list)
    for parameter in wrapped:
        of_module[parameter.rpartition(".")[0]].append(parameter)
    return {
        parameter: module + ".base_layer" * depth
        for module, some in of_module.items()
        for depth, parameter in enumerate(reversed(some))
    }


def _wrapped(config: Mapping[str, Any], by_module: Mapping[str, Mapping[str, Rows]]) -> list[str]:
    """The parameters of experts that an adapter says it changes."""
    asked = config.get("target_parameters") or []
    return [
        module
        for module, some in by_module.items()
        if next(iter(some.values())).expert is not None
        and any(module == each or module.endswith(f".{each}") for each in asked)
    ]


def _named(stored: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """What PEFT calls by wrappers by their parameters."""
    starts = {f"{_START}{name}.lora_": f"{_START}{module}.lora_" for module, name in names.items()}

    def named(name: str) -> str:
        start, middle, end = name.rpartition(".lora_")
        return starts.get(start + middle, start + middle) + end

    return {named(name): tensor for name, tensor in stored.items()}


# --- what is in the directory


def _config(directory: Path) -> dict[str, Any]:
    config = read_config(directory, "LORA")
    for key, plain in _PLAIN.items():
        if key in config and config[key] not in plain:
            raise AdapterError(
                f"{directory}: {key} is {config[key]!r}; a plain LoRA can be carried, with {key} "
                f"{plain[0]!r}"
            )
    begun = str(config.get("init_lora_weights", True)).lower()
    if begun.startswith(_REWRITING):
        raise AdapterError(
            f"{directory}: it was begun as {begun}, which changes the model's own weights: convert "
            "it to a plain LoRA first (PEFT: save_pretrained with path_initial_model_for_...)"
        )
    return config


def _modules(directory: Path, stored: Mapping[str, Tensor]) -> Sequence[str]:
    """The layers that are changed, in their order; both matrices of each must be there."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in stored:
        end = next((end for end in (_DOWN, _UP) if name.endswith(end)), None)
        if end is None or not name.startswith(_START):
            raise AdapterError(f"{directory}: {name} is none of {_START}LAYER{{{_DOWN}, {_UP}}}")
        found[name.removeprefix(_START).removesuffix(end)].add(end)
    for module, ends in found.items():
        if len(ends) == 1:
            raise AdapterError(f"{directory}: of {module} there is {ends.pop()[1:]} alone")
    if not found:
        raise AdapterError(f"{directory}: {WEIGHTS_FILE} holds no layer")
    return list(found)


def _targeted(
    directory: Path, config: Mapping[str, Any], by_module: Mapping[str, Mapping[str, Rows]]
) -> list[str]:
    """The layers of the model that an adapter says it changes, as PEFT finds them."""
    if config.get("target_modules") is None:  # PEFT's own choice for the family
        return []
    try:
        asked = LoraConfig(
            target_modules=config["target_modules"],
            exclude_modules=config.get("exclude_modules"),
            layers_to_transform=config.get("layers_to_transform"),
            layers_pattern=config.get("layers_pattern"),
        )
        return [module for module in by_module if check_target_module_exists(asked, module)]
    except (ValueError, TypeError, re.error) as error:
        raise AdapterError(f"{directory}: {CONFIG_FILE} names no layers: {error}") from None


def _stated(config: Mapping[str, Any], patterns: str, name: str, module: str) -> Any:
    """What is stated of a layer: by a pattern that it fits, or of all."""
    found: dict[str, Any] = config.get(patterns) or {}
    plain = config.get(name, LoraConfig.__dataclass_fields__[name].default)
    return found.get(get_pattern_key(list(found), module), plain)


def _scale(directory: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """What PEFT multiplies the change of a layer by."""
    alpha = _stated(config, "alpha_pattern", "lora_alpha", module)
    if not isinstance(alpha, int | float) or not rank:
        raise AdapterError(
            f"{directory}: lora_alpha {alpha!r} over rank {rank} at {module}; both are numbers, "
            "and the rank is at least 1"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
