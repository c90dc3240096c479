"""What can be carried, by the name of its section in a run file, in the order of a sweep."""

from jobs.cargo import Cargo
from jobs.cargos.kv_cache import KvCaches
from jobs.cargos.lora import LoraAdapters
from jobs.cargos.soft_prompt import Latents
from jobs.cargos.steering import SteeringVectors
from jobs.config import RunFile
from jobs.texts import Texts
from jobs.workload import Reading, tokens

CARGOS: dict[str, Cargo] = {
    "steering": SteeringVectors(),
    "kv_cache": KvCaches(),
    "lora": LoraAdapters(),
    "soft_prompt": Latents(),
}


def carried_in(run: RunFile) -> list[Cargo]:
    """The cargos of a run."""
    return [each for name, each in CARGOS.items() if getattr(run, name) is not None]


def readings(run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
    """What one model reads in a run with `others` other models, each of which is its source once.

    A model is read once for the anchors, however many pairs it is in.
    """
    anchors = Reading("anchors", tokens(texts.anchors))
    return (anchors, *(of for each in carried_in(run) for of in each.readings(run, texts, others)))
