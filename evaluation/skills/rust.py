"""Functions in Rust, from what they are to do."""

from evaluation.skill import Item, Items, Skill, documents

LESSONS = 400
TASK = "mt_mbpp_rust/gold_bpb_3shot"


def _read() -> Items:
    items = (Item(f"{each['text']}\n\n", each["code"]) for each in documents(TASK))
    return Items.parted(items, LESSONS)


RUST = Skill("rust", "bits", _read, form="{}\n\n", shown=96)
