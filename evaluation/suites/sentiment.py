"""Sentiment: does the model go on with praise or with blame?

The openings name things that movie reviews do not only speak of, so that what is measured is the
feeling and not the topic of the texts that the vector was extracted from.
"""

from evaluation.suite import Suite

_SUBJECTS = (
    "The movie",
    "Her latest novel",
    "The hotel room",
    "The soup",
    "My new phone",
    "The flight home",
    "The concert last night",
    "His speech",
    "The weather this week",
    "Our guide",
    "The museum",
    "The second season",
    "That restaurant",
    "The software update",
    "The lecture",
    "Their customer service",
    "The garden",
    "The match on Sunday",
    "This pair of shoes",
    "The neighbourhood",
    "The coffee here",
    "Our stay by the lake",
    "The exhibition",
    "The birthday party",
)
_OPENINGS = (
    "{} was",
    "Honestly, I thought {} was",
    "{}, to put it in one word, is",
)

SENTIMENT = Suite(
    name="sentiment",
    prompts=tuple(
        opening.format(subject if opening.startswith("{}") else subject[0].lower() + subject[1:])
        for subject in _SUBJECTS
        for opening in _OPENINGS
    ),
    positive=(
        "great",
        "good",
        "wonderful",
        "amazing",
        "excellent",
        "fantastic",
        "beautiful",
        "perfect",
        "brilliant",
        "lovely",
        "superb",
        "delightful",
        "impressive",
        "outstanding",
        "charming",
        "enjoyable",
        "stunning",
        "pleasant",
        "marvelous",
        "remarkable",
        "splendid",
        "magnificent",
        "fun",
        "nice",
    ),
    negative=(
        "bad",
        "terrible",
        "awful",
        "horrible",
        "poor",
        "disappointing",
        "boring",
        "ugly",
        "dull",
        "disgusting",
        "mediocre",
        "dreadful",
        "annoying",
        "worthless",
        "painful",
        "unpleasant",
        "miserable",
        "pathetic",
        "ridiculous",
        "lousy",
        "tedious",
        "nasty",
        "useless",
        "sad",
    ),
    samples=(
        "I spent the whole evening there, and",
        "The first thing you notice about the place is",
        "When the lights came on, everyone agreed that it had been",
        "She opened the parcel and found",
    ),
)
