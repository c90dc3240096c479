"""Sections of a run file that say what is carried: one for each cargo.

The names of suites and directions are those of the files that hold them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from actors.corpora import CorpusSpec
from jobs.names import file_names

Count = Annotated[int, Field(ge=1)]
Draws = Annotated[int, Field(ge=200)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


def one_of_names(what: str, allowed: Sequence[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"no {what} of that name; allowed: {', '.join(allowed)}")
        return value

    return AfterValidator(check)


SUITE_NAMES = file_names("evaluation/suites")
DIRECTION_NAMES = file_names("alignment/directions")
SKILL_NAMES = file_names("evaluation/skills")

DirectionName = Annotated[str, one_of_names("direction", DIRECTION_NAMES)]
SuiteName = Annotated[str, one_of_names("suite", SUITE_NAMES)]
SkillName = Annotated[str, one_of_names("skill", SKILL_NAMES)]


class Section(BaseModel):
    """A part of a run file, which says what may be in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(Section):
    """The two sides of a concept in one domain or language."""

    positive: CorpusSpec
    negative: CorpusSpec


class Contrast(Section):
    """Two sets of texts; a vector is extracted from the first `texts` of each by hash.

    `groups` give the two sides once for each domain or language; `texts` of each side of each group
    are taken, so that all groups count alike. With `paired`, the texts of the two sides belong
    together, one by one, and are read from the word on at which they part. `pool` is what stands
    for a text: the mean over its words, or its last word.
    """

    name: Name
    positive: CorpusSpec | None = None
    negative: CorpusSpec | None = None
    groups: dict[Name, Group] = Field(default_factory=dict)
    paired: bool = False
    pool: Literal["words", "last_word"] = "words"
    texts: Annotated[int, Field(ge=4)] = 160

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [side for side in ("positive", "negative") if getattr(self, side) is not None]
        if self.groups and given:
            raise ValueError(
                f"{self.name} has groups ({', '.join(self.groups)}) and {' and '.join(given)} "
                "beside them; either is enough"
            )
        if not self.groups and len(given) < 2:
            raise ValueError(f"{self.name} needs positive and negative, or groups of them")
        if len(self.groups) == 1:
            raise ValueError(f"{self.name} has one group, {next(iter(self.groups))}; at least two")
        return self

    @property
    def by_group(self) -> dict[str, Group]:
        """Both sides of every group; of a concept without groups, by its own name."""
        if self.positive is None or self.negative is None:
            return {f"{self.name}.{group}": sides for group, sides in self.groups.items()}
        return {self.name: Group(positive=self.positive, negative=self.negative)}


class Concept(Contrast):
    """What is steered towards, and the suite that tells whether it is: of the same name if left
    out."""

    suite: SuiteName = ""

    @model_validator(mode="before")
    @classmethod
    def _of_the_same_name(cls, raw: Any) -> Any:
        return {"suite": raw.get("name"), **raw} if isinstance(raw, dict) else raw


class Steering(Section):
    """Steering vectors carried from each model into each other one, one for each concept.

    The vector of another concept is a control: that of the next in the list, or of `other`.
    `strengths` are in units of the length of a typical centred activation of the target at the
    site: the same grid, and the same length of vector, for native, carried and controls. The one
    used is the greatest whose native vector costs at most `neutral_kl` (nats per token) on dev.
    Neutral text is the first `neutral_words` words of each of `neutral_texts` texts. With
    `trained`, a map is also trained through each target, so that what vectors do to the next word
    of the source is kept: another way to carry, tried last. `relabellings` are vectors made of the
    same texts with their sides drawn at random: an effect is real if hardly any of them does as
    much. What is written after `judged_prompts` of the test prompts is read by judges.
    """

    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]
    other: Contrast | None = None
    direction: DirectionName = "difference_of_means"
    trained: bool = False
    strengths: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.05, 0.1, 0.2, 0.4)
    neutral_kl: Share = 0.05
    neutral_texts: Count = 8
    neutral_words: Annotated[int, Field(ge=2)] = 32
    random_directions: Annotated[int, Field(ge=20)] = 20
    relabellings: Annotated[int, Field(ge=20)] = 20
    shuffles: Count = 20
    judged_prompts: Annotated[int, Field(ge=2)] = 16
    samples: Count = 3
    sample_tokens: Count = 24
    bootstrap_draws: Draws = 2000

    @model_validator(mode="after")
    def _another_for_each(self) -> Self:
        names = [each.name for each in self.contrasts]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two concepts are named {twice[0]}; names are distinct")
        if len(names) == 1:
            raise ValueError("other: missing; a single concept needs another one as its control")
        return self

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Everything that vectors are extracted of."""
        return (*self.concepts, *(() if self.other is None else (self.other,)))

    def other_than(self, concept: str) -> str:
        """The concept whose vector is the control of this one."""
        if self.other is not None:
            return self.other.name
        names = [each.name for each in self.concepts]
        return names[(names.index(concept) + 1) % len(names)]


class Routes(Section):
    """Paths of vectors and of adapters through other models, of at most so many `hops`, judged
    beside the direct way."""

    hops: Annotated[int, Field(ge=2, le=3)] = 3


class Content(CorpusSpec):
    """A kind of text: so many texts of a corpus, one after the other, make one."""

    joined: Count = 1


class Caches(Section):
    """KV caches of each model handed over to each other one.

    A text is cut off after the words that begin in its first `cached` characters, and ends
    `judged` characters after these `cached`; texts that are shorter are left out. Of each kind of
    content `texts` are what maps are fitted to, `held` what λ is chosen on, and `test` what is
    judged; all come by hash. `components` are kept of the keys, and of the values, of a layer.
    `again` are shares of the cached tokens, the last ones, that the target reads again after all.
    `shorter` are shares of what is cached: each text is judged after so much of its end alone as
    well. With `losses` parts of what is carried are put right one at a time, to say where the loss
    is.
    With `small` a second map is made, which takes at most so large a share of the bytes of the
    target's weights in half precision: of low rank, in four bits. With `trained` that one is also
    trained through the target, so that it says what it says after its own cache: a third map.
    """

    content: Annotated[dict[Name, Content], Field(min_length=1)]
    cached: Count = 500
    judged: Count = 300
    texts: Annotated[int, Field(ge=8)] = 80
    held: Annotated[int, Field(ge=2)] = 8
    test: Annotated[int, Field(ge=2)] = 16
    components: Count = 32
    again: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.125, 0.25, 0.5)
    shorter: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    losses: bool = False
    small: Annotated[float, Field(gt=0, lt=1)] | None = None
    trained: bool = False
    bootstrap_draws: Draws = 2000

    @model_validator(mode="after")
    def _trained_is_small(self) -> Self:
        if self.trained and self.small is None:
            raise ValueError("trained: the small map is trained; say how small it is")
        return self


class Adapters(Section):
    """LoRA adapters that teach every model every skill, carried into each other model.

    Each model is taught by at most `lessons` of a skill, over `epochs`, at every place with `rank`.
    Of its items at most `held` are what ways are chosen on, and `test` are judged. The source's
    adapter is what is carried; the target's own is what it is compared to.

    By a refit the target learns to change what it says as the source's adapter changes what that
    says: on `texts` of the anchors, and on as many that the adapted source writes itself. It reads
    at most the share `refit` of the tokens that the target's own adapter was taught by, over
    `refit_epochs`. With `solve` the change is solved for as well, in a few steps on what the source
    has written, which takes the square of every width in memory. What is said is compared
    over the `tokens` likeliest ones that both vocabularies have. With `safety` a hundred requests
    are answered as well, of which half are harmful, before and after.
    """

    skills: Annotated[tuple[SkillName, ...], Field(min_length=1)] = SKILL_NAMES
    lessons: Count = 800
    held: Annotated[int, Field(ge=10, le=100)] = 100
    test: Annotated[int, Field(ge=20, le=200)] = 200
    rank: Count = 8
    learning_rate: Share = 1e-3
    batch: Count = 16
    epochs: Count = 2
    texts: Annotated[int, Field(ge=32)] = 192
    refit: Annotated[float, Field(gt=0, le=1)] = 0.1
    refit_epochs: Count = 1
    refit_batch: Count = 4
    refit_learning_rate: Share = 2e-3
    solve: bool = True
    tokens: Annotated[int, Field(ge=2)] = 4096
    safety: bool = True
    bootstrap_draws: Draws = 2000


class SoftPrompts(Section):
    """Texts read by one model, and by others as `count` latents in their place.

    Each of `encoders` (all models, if none are named) reads the texts of a skill up to `depth` of
    its layers. A resampler makes latents of that, of `width`, by `blocks` of attention with
    `heads`. It is trained together with an adapter for every other model, on at most `lessons` of
    the skill over `epochs`, by what those models make of the latents. Models in `later` also join a
    resampler that was trained without them, by their adapter alone; with `joint` off they do
    nothing else, so that a model which is added to a matrix costs its own pairs, and no others are
    trained anew. With `bytes` all models are also given latents of the bytes of texts, which no
    model has read: what those keep is what training teaches without a source.

    Each model is also taught a prompt of as many rows by the same lessons, over `prompt_epochs`,
    before texts that it reads itself: what is carried is compared to that.
    """

    skills: Annotated[tuple[SkillName, ...], Field(min_length=1)] = ("sentiment",)
    encoders: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    joint: bool = True
    depth: Annotated[float, Field(gt=0, le=1)] = 0.5
    count: Count = 16
    width: Annotated[int, Field(ge=8)] = 256
    blocks: Count = 2
    heads: Count = 4
    lessons: Count = 800
    learning_rate: Share = 1e-3
    batch: Count = 16
    epochs: Count = 5
    bytes: bool = True
    prompt_learning_rate: Share = 0.1
    prompt_epochs: Count = 2
    bootstrap_draws: Draws = 2000

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, which {self.heads} heads do not share evenly")
        return self
