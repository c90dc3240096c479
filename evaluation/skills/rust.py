"""Functions in Rust, from what they are to do."""

from evaluation.skill import Item, Items, Skill, documents

LESSONS = 400
FORM = "{}\n\n"
TASK = "mt_mbpp_rust/gold_bpb_3shot"


def _read() -> Items:
    items = (Item(FORM.format(each["text"]), each["code"]) for each in documents(TASK))
    return Items.parted(items, LESSONS)


RUST = Skill("rust", "bits", _read, form=FORM, begins="Write a function to ", shown=96)
