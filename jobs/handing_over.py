"""What of each test text crosses when its cache is handed over, for every ordered pair."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from actors.cache_folder import BITS, CARRIED
from actors.hand_over import Passage
from alignment.cache_map import CacheMap
from cluster.gang import Ref, share
from cluster.storage import Store, address
from cluster.stream import stream
from evaluation.cells import Key
from jobs.attempts import persist
from jobs.cache_maps import CacheFitting, Handing, handings, require_together
from jobs.config import RunFile
from jobs.passages import BATCH_TEXTS, Passages
from jobs.progress import Reporter
from jobs.sections import Caches
from jobs.waves import Crew
from jobs.work import FORMAT

CONTINUATION = "continuation"
WHOLE = 1.0  # of what is cached of a text
Nats = dict[str, float]  # per token of what follows, by what is cached before it


@dataclass(frozen=True)
class Question:
    """A text to be handed over in one direction, how much of what is cached of it there is, another
    one as its control where all of it is, and the address."""

    handing: Handing
    content: str
    share: float
    passage: Passage
    other: Passage | None
    to: str


# Those of one direction and share that are asked in one call, for which maps are read once; always
# the same, whatever is left, so that answers are the same to the bit.
Together = Sequence[Question]


@dataclass(frozen=True, eq=False)
class Handed:
    """What came of one ordered pair: nats of every text by kind of content, and of all texts by how
    much of what is cached of them there is."""

    handing: Handing
    nats: Mapping[str, Sequence[Nats]]
    shorter: Mapping[float, Sequence[Nats]]

    @property
    def key(self) -> Key:
        """Source, target, cargo, concept."""
        return self.handing.source.name, self.handing.target.name, "kv_cache", CONTINUATION


def hand_over(
    run: RunFile,
    section: Caches,
    texts: Passages,
    crew: Crew,
    store: Store,
    reporter: Reporter,
) -> list[Handed]:
    """Fit every map of caches that is not there, and hand every test text over that has not been.

    Raises:
        ConfigError: two models do not fit into the cluster together.
        CacheError: a text is longer than the context of a model.
        ActorLost: a process died too often.
    """
    wanted = handings(section, texts, crew.facts)
    CacheFitting(run, section, texts, crew, store, reporter).complete(wanted)
    asked = [each for handing in wanted for each in questions(section, texts, handing)]
    nats = HandingOver(run, section, crew, store, reporter).complete(asked)
    return [_handed(each, asked, nats) for each in wanted]


def _handed(handing: Handing, asked: Sequence[Question], nats: Sequence[Nats]) -> Handed:
    contents: dict[str, list[Nats]] = {}
    shorter: dict[float, list[Nats]] = {}
    for question, answer in zip(asked, nats, strict=True):
        if question.handing is handing and question.share == WHOLE:
            contents.setdefault(question.content, []).append(answer)
        elif question.handing is handing:
            shorter.setdefault(question.share, []).append(answer)
    return Handed(handing, contents, shorter)


def cache_files(directory: Path, handed: Handed, store: Store) -> Path:
    """What is registered of a pair: the map, and what it is."""
    CacheMap.from_bytes(store.get(handed.handing.maps[CARRIED])).save(directory, BITS)
    return directory


def questions(section: Caches, texts: Passages, handing: Handing) -> list[Question]:
    """Every test text, with the next one of its kind as the other; and those that are cached in
    part, of which no more is asked than what is carried by the map that is used."""
    beside: list[JsonValue] = [list(section.again), section.losses]
    whole = [
        _question(handing, content, WHOLE, text, other, dict(handing.maps), *beside)
        for content, of in texts.test.items()
        for text, other in zip(of, (*of[1:], of[0]), strict=True)
    ]
    return whole + [
        _question(handing, content, share, text.last(share), None, handing.maps[CARRIED])
        for share in section.shorter
        for content, of in texts.test.items()
        for text in of
    ]


def _question(
    handing: Handing,
    content: str,
    share: float,
    passage: Passage,
    other: Passage | None,
    *beside: JsonValue,
) -> Question:
    ends = [each.fingerprint for each in handing.ends]
    texts = [asdict(each) for each in (passage, other) if each is not None]
    to = address("hand-over", FORMAT, ends, texts, *beside)
    return Question(handing, content, share, passage, other, to)


@dataclass(frozen=True, eq=False)
class HandingOver:
    """Who is asked, where maps and answers are, and who is told."""

    run: RunFile
    section: Caches
    crew: Crew
    store: Store
    reporter: Reporter

    def complete(self, wanted: Sequence[Question]) -> list[Nats]:
        """Hand over every text that has not been yet; the answers in the order of the questions.

        Raises:
            ConfigError: two models do not fit into the cluster together.
            CacheError: a text is longer than the context of a model.
            ActorLost: a process died too often.
        """
        undone = [self._open(_alternating(map(_together, ways))) for ways in _by_pair(wanted)]
        done = len(wanted) - sum(len(some) for of_it in undone for some in of_it)
        with self.reporter.stage("handing caches over", len(wanted), done) as stage:

            def attempt(left: Sequence[Together]) -> None:
                for some, answers in self._answers(left):
                    for question, answer in zip(some, answers, strict=True):
                        self.store.put(question.to, json.dumps(answer, sort_keys=True).encode())
                    stage.advance(len(some))

            for of_it in filter(None, undone):
                require_together(self.crew, of_it[0][0].handing.names)
                self.crew.live(of_it[0][0].handing.names)
                still = partial(self._open, of_it)
                persist(of_it, attempt, still, self.run.cluster.restarts, [self.crew], self._lost)
        return [json.loads(self.store.get(each.to)) for each in wanted]

    def _open(self, wanted: Sequence[Together]) -> list[Together]:
        there = self.store.present({each.to for some in wanted for each in some})
        return [some for some in wanted if not all(each.to in there for each in some)]

    def _answers(self, left: Sequence[Together]) -> Iterator[tuple[Together, list[Nats]]]:
        handings = {some[0].handing.names: some[0].handing for some in left}
        live = self.crew.live(left[0][0].handing.names)
        files = {names: self._files(each) for names, each in handings.items()}
        maps = {names: share(of) for names, of in files.items()}
        chief = {names: share({CARRIED: of[CARRIED]}) for names, of in files.items()}

        def submit(some: Together) -> Ref:
            names = some[0].handing.names
            source, target = (live[name].host for name in names)
            passages = [each.passage for each in some]
            read = source.submit("read", [of.cached for of in passages])
            others = [each.other.cached for each in some if each.other is not None]
            if not others:
                return target.submit("hand_over", passages, read, [None] * len(some), chief[names])
            beside = (source.submit("read", others), maps[names])
            more = (self.section.again, self.section.losses)
            return target.submit("hand_over", passages, read, *beside, *more)

        with closing(stream(left, submit, self.run.cluster.in_flight)) as answers:
            yield from answers

    def _files(self, handing: Handing) -> dict[str, np.ndarray]:
        return {
            name: np.frombuffer(self.store.get(to), dtype=np.uint8)
            for name, to in handing.maps.items()
        }

    def _lost(self) -> None:
        self.reporter.note("a model was lost; what it has not answered is asked again")


def _together(questions: Sequence[Question]) -> list[Together]:
    shares = [list(of) for _, of in groupby(questions, key=lambda each: each.share)]
    return [of[at : at + BATCH_TEXTS] for of in shares for at in range(0, len(of), BATCH_TEXTS)]


def _alternating(ways: Iterable[Sequence[Together]]) -> list[Together]:
    """Of each direction in turn, so that both models of a pair have something to do."""
    return [some for both in zip_longest(*ways) for some in both if some is not None]


def _by_pair(wanted: Sequence[Question]) -> list[list[list[Question]]]:
    """The questions of each pair, by direction."""
    grouped: dict[frozenset[str], dict[tuple[str, str], list[Question]]] = {}
    for each in wanted:
        names = each.handing.names
        grouped.setdefault(frozenset(names), {}).setdefault(names, []).append(each)
    return [list(ways.values()) for ways in grouped.values()]
