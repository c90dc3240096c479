"""What can be carried: for each cargo what is known of a crossing."""

from typing import get_args

from evaluation.cargos.kv_cache import CacheCell
from evaluation.cargos.lora import AdapterCell
from evaluation.cargos.soft_prompt import PromptCell
from evaluation.cargos.steering import SteeringCell

AnyCell = SteeringCell | CacheCell | AdapterCell | PromptCell
CARGOS: tuple[str, ...] = tuple(each.model_fields["cargo"].default for each in get_args(AnyCell))
