"""How a project asks for each kind of task: a dataclass of settings for each, read strictly.

The settings lie in `TaskForm` rows as JSON. A project without a row for a kind asks for it by the
defaults here. `shown` is the part of a form that its annotators are told.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

from annotation.models import Project, Task
from modelhub.errors import ApplicationError

RATIONALES = ("none", "optional", "required")
STARTS = ("nothing", "draft", "either")
MAX_FLAGS = 20
MAX_LABEL_CHARS = 80
# Keys with a meaning on every annotator's page, or on the page of ratings: 1 to 7, and those that
# move among answers, compare, fold and scroll them, show their source, and write a reason.
TAKEN_KEYS = frozenset("1234567jkgdsuqe?rotl")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KEY = re.compile(r"[a-z0-9]")
_ENDPOINT = re.compile(r"[-a-zA-Z0-9_]{1,80}")
_UID = re.compile(r"[0-9a-f]{32}")


_ONE_OF = _("wanted one of %(names)s")
_RANGE = _("wanted %(least)s to %(most)s")
_TWICE = _("“%(value)s” is there twice")


class FormError(ApplicationError):
    """Settings were refused: which field, and why, in the words of whoever reads it.

    `reason` is marked for translation where it is written, with places for `values`.
    """

    def __init__(self, name: str, reason: str, **values: object) -> None:
        words = gettext("Task form, field %(name)s: %(reason)s.")
        told = {"name": name, "reason": gettext(reason) % values}
        super().__init__(words % told, {"field": name})


def _check(holds: bool, name: str, reason: str, **values: object) -> None:
    if not holds:
        raise FormError(name, reason, **values)


@dataclass(frozen=True, kw_only=True)
class BaseForm:
    """What every kind may ask."""

    KIND: ClassVar[str]
    rationale: str = "optional"

    def __post_init__(self) -> None:
        _check(self.rationale in RATIONALES, "rationale", _ONE_OF, names=", ".join(RATIONALES))

    def as_json(self) -> dict[str, Any]:
        """The settings as they are stored."""
        return dataclasses.asdict(self)

    def shown(self) -> dict[str, Any]:
        """The settings that the annotator's page is given."""
        return self.as_json()


@dataclass(frozen=True, kw_only=True)
class RankingForm(BaseForm):
    """All answers in tiers, best first; a tier of several is a tie."""

    KIND = Task.Kind.RANKING.value
    unacceptable: bool = True  # whether answers may be marked as acceptable to nobody
    rewrite: bool = True  # whether an answer may be written anew where none is good


@dataclass(frozen=True, kw_only=True)
class PairForm(BaseForm):
    """The better of two answers, and by how much."""

    KIND = Task.Kind.PAIR.value
    ties: bool = True  # whether "neither" is an answer
    safety_labels: bool = False  # whether each side is called safe or not


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Something that may be wrong with an answer: its name in the data, its label, its key."""

    name: str
    label: str
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class RatingForm(BaseForm):
    """Each answer by itself: 1 to 7, and flags."""

    KIND = Task.Kind.RATING.value
    flags: tuple[Flag, ...] = (
        Flag(name="fails_instruction", label=_("Fails the instruction"), key="f"),
        Flag(name="wrong", label=_("Says what is wrong"), key="w"),
        Flag(name="hallucinated", label=_("Makes things up"), key="h"),
        Flag(name="harmful", label=_("Harmful"), key="x"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(len(self.flags) <= MAX_FLAGS, "flags", _("wanted at most %(most)s"), most=MAX_FLAGS)
        names, keys = set[str](), set[str]()
        for place, flag in enumerate(self.flags):
            where = f"flags[{place}]"
            _check(
                bool(_NAME.fullmatch(flag.name)),
                f"{where}.name",
                _("wanted a small letter and up to 39 small letters, digits and _"),
            )
            _check(flag.name not in names, f"{where}.name", _TWICE, value=flag.name)
            label = flag.label
            _check(
                0 < len(label.strip()) <= MAX_LABEL_CHARS and label.isprintable(),
                f"{where}.label",
                _("wanted 1 to %(most)s characters"),
                most=MAX_LABEL_CHARS,
            )
            names.add(flag.name)
            if flag.key:
                _check(bool(_KEY.fullmatch(flag.key)), f"{where}.key", _("wanted a-z or 0-9"))
                taken = flag.key in TAKEN_KEYS
                _check(not taken, f"{where}.key", _("%(key)s means another"), key=flag.key)
                _check(flag.key not in keys, f"{where}.key", _TWICE, value=flag.key)
                keys.add(flag.key)

    def shown(self) -> dict[str, Any]:
        """With our own labels in the reader's language; a project's stay as they are."""
        told = self.as_json()
        for flag in told["flags"]:
            flag["label"] = gettext(flag["label"])
        return told


@dataclass(frozen=True, kw_only=True)
class DemonstrationForm(BaseForm):
    """The ideal answer, written by a person."""

    KIND = Task.Kind.DEMONSTRATION.value
    start: str = "either"  # from "nothing", from a model's "draft", or from "either"
    turns: int = 1  # answers that may be written, each to the person's own next message

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.start in STARTS, "start", _ONE_OF, names=", ".join(STARTS))
        _check(1 <= self.turns <= 20, "turns", _RANGE, least=1, most=20)


@dataclass(frozen=True, kw_only=True)
class EditForm(BaseForm):
    """One of the answers, made better."""

    KIND = Task.Kind.EDIT.value


@dataclass(frozen=True, kw_only=True)
class Side:
    """Who gives one of a dialogue's two answers, and how it is sampled."""

    endpoint: str  # name of an Endpoint of the hub
    temperature: float = 1.0
    version: str = ""  # uid of the model version that the endpoint serves, where it is one of ours


@dataclass(frozen=True, kw_only=True)
class DialogueForm(BaseForm):
    """A talk with live models: each turn two answers, of which one is chosen and goes on.

    Without two `sides` no answers are given, and so no such task can be done.
    """

    KIND = Task.Kind.DIALOGUE.value
    sides: tuple[Side, ...] = field(default=())
    max_turns: int = 4
    max_tokens: int = 1024  # of an answer

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(len(self.sides) in (0, 2), "sides", _("wanted two, or none yet"))
        for place, side in enumerate(self.sides):
            where = f"sides[{place}]"
            _check(
                bool(_ENDPOINT.fullmatch(side.endpoint)), f"{where}.endpoint", _("wanted a name")
            )
            _check(
                0 <= side.temperature <= 2,  # so is NaN refused
                f"{where}.temperature",
                _RANGE,
                least=0,
                most=2,
            )
            _check(
                not side.version or bool(_UID.fullmatch(side.version)),
                f"{where}.version",
                _("wanted the uid of a model version, or nothing"),
            )
        _check(1 <= self.max_turns <= 50, "max_turns", _RANGE, least=1, most=50)
        _check(1 <= self.max_tokens <= 32_768, "max_tokens", _RANGE, least=1, most=32_768)

    def shown(self) -> dict[str, Any]:
        """Without the sides: annotators are not told who answers them, or how it is sampled."""
        told = self.as_json()
        del told["sides"]
        return told


Form = RankingForm | PairForm | RatingForm | DemonstrationForm | EditForm | DialogueForm
FORMS: dict[str, type[Form]] = {
    cls.KIND: cls
    for cls in (DemonstrationForm, RankingForm, PairForm, RatingForm, EditForm, DialogueForm)
}

# What the annotators of a paper were asked, where one of our kinds can ask it.
PRESETS: dict[str, Form] = {
    # Ouyang et al. 2022 (arXiv:2203.02155), appendix B.3: overall quality and its metadata.
    "InstructGPT": RatingForm(
        flags=(
            Flag(name="fails_instruction", label=_("Fails to follow the instruction"), key="f"),
            Flag(
                name="inappropriate_for_assistant",
                label=_("Inappropriate for a customer assistant"),
                key="i",
            ),
            Flag(name="hallucination", label=_("Hallucination"), key="h"),
            Flag(name="satisfies_constraint", label=_("Satisfies the constraint given"), key="c"),
            Flag(name="sexual", label=_("Sexual content"), key="x"),
            Flag(name="violent", label=_("Violent content"), key="v"),
            Flag(
                name="encourages_harm",
                label=_("Encourages violence, abuse, terrorism or self-harm"),
                key="b",
            ),
            Flag(name="denigrates", label=_("Denigrates a protected class"), key="p"),
            Flag(name="harmful_advice", label=_("Gives harmful advice"), key="a"),
            Flag(name="opinion", label=_("Expresses an opinion"), key="n"),
            Flag(name="moral_judgment", label=_("Expresses a moral judgement"), key="m"),
        )
    ),
    # Touvron et al. 2023 (arXiv:2307.09288), section 3.2.1: a forced choice of two, its degree in
    # four steps, and a safety label that sorts the pair into three bins.
    "Llama 2": PairForm(ties=False, safety_labels=True, rationale="none"),
    # Bai et al. 2022 (arXiv:2204.05862), section 2.2: one of two answers, with a strength, a turn.
    "HH dialogue": DialogueForm(max_turns=8, rationale="none"),
}

# What people are asked of a corpus's documents, and the form of a project that is made for it.
DOCUMENT_QUESTION = _(
    "Is this text good for a language model to learn from? 7: well written and worth knowing. "
    "4: you cannot say. 1: better left out. Say what is wrong with it by the flags."
)
DOCUMENT_FORM = RatingForm(
    rationale="none",
    flags=(
        Flag(name="boilerplate", label=_("Menus, notices, boilerplate"), key="b"),
        Flag(name="advertising", label=_("Advertising or spam"), key="a"),
        Flag(name="garbled", label=_("Garbled or cut to pieces"), key="c"),
        Flag(name="repetitive", label=_("Repeats itself"), key="w"),
        Flag(name="machine_made", label=_("Made by a machine"), key="m"),
        Flag(name="harmful", label=_("Harmful"), key="x"),
        Flag(name="personal", label=_("Personal data"), key="p"),
    ),
)

_FLAG_LABELS = {
    flag.name: flag.label
    for form in (*PRESETS.values(), RatingForm(), DOCUMENT_FORM)
    if isinstance(form, RatingForm)
    for flag in form.flags
}


def flag_label(name: str) -> str:
    """A flag's name in data → words for a page: ours in the reader's language, others as named."""
    label = _FLAG_LABELS.get(name)
    return gettext(label) if label else name.replace("_", " ")


def form_read(kind: str, settings: Mapping[str, Any]) -> Form:
    """The form of some settings. Raises FormError naming the first field that does not fit."""
    if kind not in FORMS:
        reason = _("there is no kind “%(kind)s”; there are %(names)s")
        raise FormError("kind", reason, kind=kind, names=", ".join(FORMS))
    values = _typed(FORMS[kind], settings, "")
    for name, cls in (("flags", Flag), ("sides", Side)):
        if name in values:
            values[name] = tuple(
                cls(**_typed(cls, one, f"{name}[{place}]."))
                for place, one in enumerate(values[name])
            )
    return FORMS[kind](**values)


def form_of(project: Project, kind: str) -> Form:
    """How the project asks for a kind. One query, none where its task_forms were prefetched."""
    row = next((row for row in project.task_forms.all() if row.kind == kind), None)
    return form_read(kind, _keys_freed(row.settings) if row else {})


def _keys_freed(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stored settings, without the keys of flags that have got a meaning of the page's own."""
    flags = settings.get("flags")
    if not isinstance(flags, list):
        return settings
    freed = [
        {**one, "key": ""} if isinstance(one, dict) and one.get("key") in TAKEN_KEYS else one
        for one in flags
    ]
    return {**settings, "flags": freed}


def _typed(cls: type[Any], values: Any, where: str) -> dict[str, Any]:
    """The values whose names and JSON types are those of a dataclass's fields."""
    if not isinstance(values, Mapping):
        raise FormError(where.removesuffix(".") or "settings", _("wanted an object"))
    fields = {one.name: one for one in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise FormError(f"{where}{name}"[:80], _("there is no such field"))
    for name, one in fields.items():
        needed = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise FormError(f"{where}{name}", _("is missing"))
    for name, value in values.items():
        wanted = fields[name].type
        fits = (
            isinstance(value, int | float) and not isinstance(value, bool)
            if wanted is float
            else isinstance(value, int) and not isinstance(value, bool)
            if wanted is int
            else isinstance(value, wanted)
            if isinstance(wanted, type) and wanted in (bool, str)
            else isinstance(value, list | tuple)
        )
        if not fits:
            raise FormError(
                f"{where}{name}", _("unexpected value %(value)s"), value=f"{value!r:.60}"
            )
    return dict(values)
