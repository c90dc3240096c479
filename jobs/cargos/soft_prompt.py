"""Latents: texts that one model reads, and others as a few latents in their place."""

import hashlib
from collections.abc import Mapping
from functools import partial

from actors.catalog import ModelFacts
from evaluation.cargos.soft_prompt import PromptCell, prompt_cell
from evaluation.skills import SKILLS
from evaluation.trained_ways import Judging
from jobs.cargo import Came, Cargo, Going
from jobs.config import RunFile
from jobs.sections import SoftPrompts
from jobs.soft_prompts import (
    Prompted,
    carry_prompts,
    prompt_files,
    require_forms,
    require_readers,
)
from jobs.texts import Texts
from jobs.waves import Crew
from jobs.workload import Reading, tokens, whole


class Latents(Cargo):
    """Texts of every skill, read by one model for others."""

    def ready(self, run: RunFile) -> None:
        """Raises ConfigError: a skill's items are not a text in a form."""
        require_forms(_asked(run))

    def require(self, run: RunFile, crew: Crew) -> None:
        """Raises ConfigError: those who read one encoder's latents do not fit together."""
        require_readers(_asked(run), [spec.name for spec in run.models], crew)

    def carry(self, going: Going) -> Came:
        run, models = going.run, going.asking.crew.facts
        prompted = carry_prompts(_asked(run), run.seed, going.texts, models, going.asking)
        return Came(
            [_cell(run, each, models) for each in prompted],
            {each.key: partial(prompt_files, prompted=each) for each in prompted},
        )

    def readings(self, run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
        """Every model is taught a prompt; every encoder reads all texts, and each other model the
        form they stand in, forwards and backwards, once with all and once more where it also joins
        later, with those it joins. Backwards costs two passes. What is asked for is scored alone: a
        token or two of a text."""
        section = _asked(run)
        encoders = len(section.encoders) or others + 1
        native = taught = every = judged = asked = latent = read = 0.0
        for name in section.skills:
            items = texts.items[name].first(section.lessons)
            lessons = items.lessons
            form = tokens([SKILLS[name].form.replace("{}", "")]) + section.count + 1
            taught += 3 * section.prompt_epochs * len(lessons)
            native += (
                3 * section.prompt_epochs * (tokens(whole(lessons)) + section.count * len(lessons))
            )
            every += tokens(whole((*lessons, *items.held, *items.test)))
            options = sum(1 + len(item.others) for item in (*items.held, *items.test))
            asked += 3 * options
            judged += 2 * tokens(whole((*items.held, *items.test))) + options * form
            read += 3 * section.epochs * len(lessons) + 2 * options
            latent += form * (3 * section.epochs * len(lessons) + 2 * options)
        read_from = (
            encoders * others / (others + 1) * (2 if section.later and section.joint else 1)
            + section.bytes
        )
        return (
            Reading("training prompts", native, 1.0, taught),
            Reading("reading texts", every * encoders / (others + 1), section.depth),
            Reading("training latents", latent * read_from, 1.0, read * read_from),
            Reading("judging prompts", judged, 1.0, asked),
        )


def _asked(run: RunFile) -> SoftPrompts:
    assert run.soft_prompt is not None, f"{run.name} carries no latents"
    return run.soft_prompt


def _cell(run: RunFile, of: Prompted, models: Mapping[str, ModelFacts]) -> PromptCell:
    section = _asked(run)
    return prompt_cell(
        of.source,
        of.target,
        Judging(SKILLS[of.skill], of.held, of.test, section.bootstrap_draws, run.seed),
        of.efforts,
        way=of.way,
        site=of.site,
        count=section.count,
        learned=of.learned,
        parameters=models[of.target].parameters,
        map_bytes=len(of.latents),
        map_address=hashlib.sha256(of.latents).hexdigest(),
    )
