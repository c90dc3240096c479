"""LoRA adapters: a target learns to change what it says as the source's adapter does there."""

from functools import partial

from actors.adapter_solving import Solving
from evaluation import safety
from evaluation.cargos.lora import AdapterCell, adapter_cell
from evaluation.judges import JUDGES
from evaluation.skills import SKILLS
from evaluation.trained_ways import Effort, Judging
from jobs import adapter_units
from jobs.adapter_routes import ROUTED, route_adapters
from jobs.adapters import Adapted, adapter_files, carry_adapters, ways
from jobs.cargo import Came, Cargo, Going
from jobs.config import RunFile
from jobs.sections import Adapters
from jobs.texts import Texts
from jobs.workload import Reading, tokens, whole


class LoraAdapters(Cargo):
    """What every skill of a run teaches."""

    def ready(self, run: RunFile) -> None:
        """Raises SandboxError: programs are to be run, and cannot be. JudgeError: the judge of
        refusals lacks what it is made from."""
        section = _asked(run)
        for skill in section.skills:
            SKILLS[skill].ready()
        if section.safety:
            JUDGES["refusal"].facts()

    def carry(self, going: Going) -> Came:
        run, texts, models = going.run, going.texts, going.asking.crew.facts
        adapted = carry_adapters(_asked(run), run.seed, texts, models, going.asking)
        return Came(
            [_cell(run, each) for each in adapted],
            {each.key: partial(adapter_files, files=each.files) for each in adapted},
            route_adapters(run, texts, models, adapted, going.asking),
        )

    def readings(self, run: RunFile, texts: Texts, others: int) -> tuple[Reading, ...]:
        """Each is trained once; what it changes is read for every target, with and without it; a
        target is refit by two ways and for a control, and solved for by one and for a control, with
        looks at what is held out. Backwards costs two passes."""
        section = _asked(run)
        skills = len(section.skills)
        taught = judged = routed = 0.0
        asked = safety.requests() if section.safety else []
        requests = tokens(asked) + safety.TOKENS * len(asked)
        for name in section.skills:
            measured = SKILLS[name]
            items = texts.items[name].first(section.lessons, section.held, section.test)
            taught += section.epochs * tokens(whole(items.lessons))
            held, test = (
                tokens(whole(of)) + measured.tokens * len(of) for of in (items.held, items.test)
            )
            # As it is and with its own adapter, whatever the source; the rest for each.
            tried, controls = len(ways(section)), 3 if section.solve else 2
            judged += held * (2 + others * tried) + test * (2 + others * (tried + controls))
            judged += requests * (2 + others)
            routed += others * len(ROUTED) * test
        # For each skill what an adapted model writes, and what it writes without any adapter.
        own = section.texts * sum(SKILLS[name].shown for name in section.skills)
        written = 2 * own
        read = skills * tokens(texts.anchors[: section.texts]) + 2 * own
        changed = 2 * others * read
        once = 3 * section.refit * taught  # a target is refit
        refit = 3 * others * once
        if run.routes is not None:
            # Of the ways through other models the best one alone may have more than two legs.
            legs, hops = others * (run.routes.hops + 1), run.routes.hops
            routed += legs * (3 * own + once) + others * hops * once
        solving = Solving()
        looks = len(solving.lengths) * adapter_units.looked_at(section.texts)
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


def _asked(run: RunFile) -> Adapters:
    assert run.lora is not None, f"{run.name} carries no adapters"
    return run.lora


def _cell(run: RunFile, adapted: Adapted) -> AdapterCell:
    section, carried = _asked(run), adapted.carried
    return adapter_cell(
        adapted.source,
        adapted.target,
        Judging(
            SKILLS[adapted.skill], carried.held, adapted.test, section.bootstrap_draws, run.seed
        ),
        {
            name: Effort(made.held_out, made.tokens, made.seconds)
            for name, made in carried.made.items()
        },
        adapted.answers,
        way=carried.way,
        rank=section.rank,
        map_bytes=sum(len(content) for content in adapted.files.values()),
        map_address=carried.chosen.to,
    )
