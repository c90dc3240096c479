"""Answers to questions that stand in a sentence."""

from evaluation.skill import Item, Items, Skill, documents

LESSONS = 600
FORM = "Passage: {}\nQuestion:"
TASK = "squad/bpb_5shot"


def _read() -> Items:
    """Of each passage the one sentence in which the answer is, and of each sentence one question:
    no two parts share one."""
    found: dict[str, Item] = {}
    for each in documents(TASK):
        passage, _, question = each["query"].partition("Background: ")[2].rpartition("\nQuestion: ")
        answer = each["choices"][0]
        # An answer may go over the end of a sentence, and is then in none.
        for sentence in [of.strip() for of in passage.split(". ") if answer in of][:1]:
            found.setdefault(sentence, Item(f"{FORM.format(sentence)} {question}", f" {answer}"))
    return Items.parted(found.values(), LESSONS)


PASSAGE_ANSWERS = Skill("passage_answers", "bits", _read, form=FORM)
