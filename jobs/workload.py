"""How much a run will read, counted from its run file and its texts, before anything is loaded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actors.adapter_refit import SAMPLED
from actors.adapter_solving import Solving
from actors.blueprint import Blueprint
from actors.cache_training import CacheTraining
from actors.mending import PARTS
from actors.training import Training
from alignment.layers import ROLES
from evaluation import safety
from evaluation.skill import Item
from evaluation.skills import SKILLS
from evaluation.suites import SUITES
from jobs import adapter_units
from jobs.adapter_routes import ROUTED as ROUTED_ADAPTERS
from jobs.adapters import ways
from jobs.config import RunFile
from jobs.lessons import HELD_OUT, OPENING_WORDS, OPENINGS
from jobs.questions import SIGNS
from jobs.routes import ROUTED
from jobs.texts import Texts

# Measured of SmolLM2's and Gemma 3's tokenizers on the demo's narrative texts: 1.33 and 1.34.
TOKENS_PER_WORD = 1.33
VARIANTS = 7  # of what is cached before the rest of a text that is handed over


@dataclass(frozen=True)
class Reading:
    """One stage of one model: tokens through its blocks, and through its head.

    `share` is the part of the blocks that all of `tokens` pass: what is injected at a layer is
    copied there, so that the blocks below it run once.
    """

    stage: str
    tokens: float
    share: float = 1.0
    scored: float = 0.0

    def flops(self, model: Blueprint) -> float:
        """Multiplications and additions, two for each weight that a token meets."""
        head = model.vocabulary * model.width
        blocks = model.active_parameters - model.embedding_parameters
        return 2 * (self.tokens * self.share * blocks + self.scored * head)


def readings(run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
    """What one model reads in a run with `others` other models, each of which is its source once.

    A model is read once for the anchors, however many pairs it is in.
    """
    anchors = (Reading("anchors", _tokens(texts.anchors)),)
    carried = (_steered, _handed_over, _adapted, _prompted)
    return (*anchors, *(stage for of in carried for stage in of(run, texts, others)))


def _handed_over(run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
    """Of caches: read for each pair, then by a source and by a target for each ordered one."""
    if run.kv_cache is None or texts.passages is None:
        return ()
    read = _tokens((*texts.passages.fitted, *texts.passages.held))
    test = [each for of in texts.passages.test.values() for each in of]
    whole, cached = _tokens([each.text for each in test]), _tokens([each.cached for each in test])
    judged = whole - cached
    again = sum(share * cached + judged for share in run.kv_cache.again)
    maps, shorter = (run.kv_cache.small is not None) + run.kv_cache.trained, run.kv_cache.shorter
    parts = len(PARTS) * run.kv_cache.losses
    gone_on = judged * ((VARIANTS + maps) * (1 + len(shorter)) + parts) + again
    read_in_two = (2 * cached + whole) + sum(3 * share * cached + judged for share in shorter)
    handed = Reading("handing caches over", others * (read_in_two + gone_on), 1.0, others * gone_on)
    if not run.kv_cache.trained:
        return (Reading("caches", others * read), handed)
    # Both read every text once more, and then what follows the cached part goes forth and back;
    # next to none of the vocabulary is scored.
    follows = read * run.kv_cache.judged / (run.kv_cache.cached + run.kv_cache.judged)
    taught = 2 * read + 2 * CacheTraining().epochs * follows
    training = Reading("training maps of caches", others * taught)
    return (Reading("caches", others * read), training, handed)


def _adapted(run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
    """Of adapters: each is trained once; what it changes is read for every target, with and without
    it, and the first texts twice; a target is refit by two ways and for a control, and solved for
    by one and for a control, with looks at what is held out. Backwards costs two passes."""
    if run.lora is None:
        return ()
    section, skills = run.lora, len(run.lora.skills)
    taught = judged = routed = 0.0
    asked = safety.requests() if section.safety else []
    requests = _tokens(asked) + safety.TOKENS * len(asked)
    for name in section.skills:
        items, measured = texts.items[name], SKILLS[name]
        taught += section.epochs * _tokens(_whole(items.lessons[: section.lessons]))
        held, test = (
            _tokens(_whole(of)) + measured.tokens * len(of) for of in (items.held, items.test)
        )
        # As it is and with its own adapter, whatever the source; the rest for each.
        tried, controls = len(ways(section)), 3 if section.solve else 2
        judged += held * (2 + others * tried) + test * (2 + others * (tried + controls))
        judged += requests * (2 + others)
        routed += others * len(ROUTED_ADAPTERS) * test
    # For each skill what an adapted model writes, and what it writes without any adapter.
    own = section.texts * sum(SKILLS[name].shown for name in section.skills)
    written = 2 * own
    read = skills * _tokens(texts.anchors[: section.texts]) + 2 * own
    twice = 2 * (1 + min(1.0, SAMPLED / section.texts))
    changed = others * read * twice
    once = 3 * section.refit * taught  # a target is refit
    refit = 3 * others * once
    if run.routes is not None:
        # Of the ways through other models the best one alone may have more than two legs.
        legs, hops = others * (run.routes.hops + 1), run.routes.hops
        routed += legs * (own + own * twice + once) + others * hops * once
    solving = Solving()
    looks = len(solving.lengths) * adapter_units.HELD_OUT
    step = 3 * (min(section.texts, solving.texts) + solving.sampled) + looks
    solved = 2 * others * solving.steps * step * own / section.texts
    return (
        Reading("training adapters", 3 * taught, 1.0, 3 * taught),
        Reading("what adapters change", written + changed, 1.0, written + changed),
        Reading("refitting adapters", refit, 1.0, refit),
        *([Reading("solving for adapters", solved, 1.0, solved)] if section.solve else []),
        Reading("judging adapters", judged, 1.0, judged),
        *([Reading("routes of adapters, at most", routed, 1.0, routed)] if run.routes else []),
    )


def _prompted(run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
    """Of latents: every model is taught a prompt; every encoder reads all texts, and each other
    model the form they stand in, forwards and backwards, once with all and once more where it also
    joins later, with those it joins. Backwards costs two passes. What is asked for is scored alone:
    a token or two of a text."""
    if run.soft_prompt is None:
        return ()
    section = run.soft_prompt
    encoders = len(section.encoders) or others + 1
    native = taught = whole = judged = asked = latent = read = 0.0
    for name in section.skills:
        items = texts.items[name]
        lessons = items.lessons[: section.lessons]
        form = _tokens([SKILLS[name].form.replace("{}", "")]) + section.count + 1
        taught += 3 * section.prompt_epochs * len(lessons)
        native += (
            3 * section.prompt_epochs * (_tokens(_whole(lessons)) + section.count * len(lessons))
        )
        whole += _tokens(_whole((*lessons, *items.held, *items.test)))
        options = sum(1 + len(item.others) for item in (*items.held, *items.test))
        asked += 3 * options
        judged += 2 * _tokens(_whole((*items.held, *items.test))) + options * form
        read += 3 * section.epochs * len(lessons) + 2 * options
        latent += form * (3 * section.epochs * len(lessons) + 2 * options)
    read_from = encoders * others / (others + 1) * (2 if section.later else 1) + section.bytes
    return (
        Reading("training prompts", native, 1.0, taught),
        Reading("reading texts", whole * encoders / (others + 1), section.depth),
        Reading("training latents", latent * read_from, 1.0, read * read_from),
        Reading("judging prompts", judged, 1.0, asked),
    )


def _whole(items: Iterable[Item]) -> list[str]:
    return [f"{item.given}{text}" for item in items for text in (item.right, *item.others)]


def _steered(run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
    if run.steering is None:
        return ()
    steering, roles = run.steering, run.maps.roles
    both, strengths, ways = len(SIGNS), len(steering.strengths), 2 + len(run.maps.fitters)
    places = len(roles) * len(run.maps.kinds)
    above = 1 - sum(ROLES[role] for role in roles) / len(roles)
    prompts = texts.prompts.values()
    dev = sum(_tokens(each.dev) for each in prompts)
    test = sum(_tokens(each.test) for each in prompts)
    concepts = len(steering.concepts)
    neutral_dev, neutral_test = _tokens(texts.neutral_dev), _tokens(texts.neutral_test)
    contrasts = [side for each in texts.sides.values() for side in (each.positive, each.negative)]
    # Of a target itself, whatever the source, and of what each source carries to it.
    on_dev = both * (places * strengths + others * (places + ways))
    on_test = both * (
        1
        + steering.random_directions
        + steering.relabellings
        + others * (ways + steering.shuffles + 2)
    )
    spared = neutral_dev * concepts * both * places * strengths
    spared += neutral_test * (1 + concepts * others * 3 * both)
    judged = sum(bool(SUITES[each.suite].judges) for each in steering.concepts)
    written = 3 * concepts * steering.samples + 3 * both * judged * steering.judged_prompts
    written *= steering.sample_tokens
    rows = (
        sum(len(each.dev) for each in prompts) * on_dev,
        sum(len(each.test) for each in prompts) * on_test,
    )
    stages: tuple[Reading, ...] = (
        Reading("vectors", sum(_tokens(side) for side in contrasts)),
        Reading("choosing on dev", dev * on_dev, above, rows[0]),
        Reading("measuring on test", test * on_test, above, rows[1]),
        Reading("neutral text", spared, above, spared),
        Reading("samples", others * written, 1.0, others * written),
    )
    if run.routes is not None:
        routed = both * others * len(ROUTED)
        count = sum(len(each.test) for each in prompts) * routed
        stages += (Reading("measuring routes, at most", test * routed, above, count),)
    if steering.trained:
        stages += (_training(others * places, both * concepts, above),)
    return stages


def _training(lessons: int, copies: int, above: float) -> Reading:
    """Of a model as the target of so many lessons and the source of as many, at most.

    Each opening is read by every copy, one for each vector and sign. Backwards costs two passes.
    """
    openings = OPENINGS + HELD_OUT
    epochs = Training().epochs * (3 * OPENINGS + HELD_OUT)
    read = lessons * (copies * epochs + (1 + copies) * openings)
    return Reading("training, at most", read * OPENING_WORDS * TOKENS_PER_WORD, above, read)


def _tokens(texts: Sequence[str]) -> float:
    return TOKENS_PER_WORD * sum(len(text.split()) for text in texts)
