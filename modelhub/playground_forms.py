"""The playground's form: a prompt, the versions to ask, and ways to decode, with their knobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.forms import BoundField
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.ml.configs import ConfigError
from modelhub.ml.trials import (
    FEW_SHOT,
    MOST_MODELS,
    MOST_STRATEGIES,
    MOST_TOKENS,
    PlaygroundConfig,
)
from modelhub.models import ModelVersion

MAX_PROMPT_CHARS = 20_000
# Knob → (word, lowest, highest, step).
_KNOBS: dict[str, tuple[Any, float, float, float]] = {
    "temperature": (_("temperature"), 0.01, 5, 0.01),
    "top_k": (_("top-k"), 0, 1000, 1),
    "top_p": (_("top-p"), 0.01, 1, 0.01),
    "min_p": (_("min-p"), 0, 0.99, 0.01),
    "repetition_penalty": (_("repetition penalty"), 0.5, 5, 0.01),
    "beams": (_("beams"), 2, 16, 1),
    "length_penalty": (_("length penalty"), -2, 4, 0.1),
    "alpha": (_("alpha"), 0, 1, 0.05),
}
_WHOLE = ("top_k", "beams")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A line of the form: a kind of strategy with the knobs it shows and what they begin at."""

    name: str
    kind: str
    label: Any
    about: Any
    knobs: Mapping[str, float]


WAYS = (
    Way(
        name="greedy",
        kind="greedy",
        label=_("Greedy"),
        about=_("always the likeliest token"),
        knobs={},
    ),
    Way(
        name="temperature",
        kind="sample",
        label=_("Temperature"),
        about=_("draws from all tokens; below 1 the likely become likelier"),
        knobs={"temperature": 0.7},
    ),
    Way(
        name="top_k",
        kind="sample",
        label=_("Top-k"),
        about=_("draws from the k likeliest"),
        knobs={"top_k": 40, "temperature": 1.0},
    ),
    Way(
        name="top_p",
        kind="sample",
        label=_("Top-p (nucleus)"),
        about=_("draws from the fewest that make up p"),
        knobs={"top_p": 0.9, "temperature": 1.0},
    ),
    Way(
        name="min_p",
        kind="sample",
        label=_("Min-p"),
        about=_("leaves out what is far below the likeliest"),
        knobs={"min_p": 0.1, "temperature": 1.0},
    ),
    Way(
        name="repetition",
        kind="greedy",
        label=_("Repetition penalty"),
        about=_("greedy, but words said before count less"),
        knobs={"repetition_penalty": 1.2},
    ),
    Way(
        name="beam",
        kind="beam",
        label=_("Beam search"),
        about=_("the likeliest whole answer of several"),
        knobs={"beams": 4, "length_penalty": 1.0},
    ),
    Way(
        name="contrastive",
        kind="contrastive",
        label=_("Contrastive"),
        about=_("likely, and unlike what is written already"),
        knobs={"top_k": 4, "alpha": 0.6},
    ),
    Way(
        name="own",
        kind="sample",
        label=_("All together"),
        about=_("every knob of sampling at once"),
        knobs={
            "temperature": 0.8,
            "top_k": 50,
            "top_p": 0.95,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
        },
    ),
)


class PlaygroundForm(forms.Form):
    """One trial. `config` and `versions_chosen` are set once the form is valid."""

    layout = forms.ChoiceField(
        label=_("How it is put"),
        choices=[
            ("chat", _("Chat")),
            ("plain", _("Plain text")),
            ("few_shot", _("Few-shot assistant")),
        ],
        widget=forms.RadioSelect,
        initial="chat",
    )
    prompt = forms.CharField(
        label=_("Prompt"),
        max_length=MAX_PROMPT_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 5}),
    )
    system = forms.CharField(
        label=_("System message"),
        required=False,
        max_length=MAX_PROMPT_CHARS,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    few_shot = forms.ChoiceField(
        label=_("Examples before it"),
        choices=[(name, name) for name in FEW_SHOT],
        help_text=_("They make a base model, which only continues texts, answer in turn."),
    )
    versions = forms.TypedMultipleChoiceField(
        label=_("Versions"), widget=forms.CheckboxSelectMultiple, coerce=str
    )
    max_tokens = forms.IntegerField(
        label=_("Tokens at most"), min_value=1, max_value=MOST_TOKENS, initial=64
    )
    seed = forms.IntegerField(label=_("Seed"), min_value=0, max_value=2**31 - 1, initial=0)

    config: PlaygroundConfig
    by_servers = forms.BooleanField(
        label=_("Ask those that are served by their servers"),
        required=False,
        help_text=_("At once, without loading; greedy and drawn answers alone."),
    )

    versions_chosen: list[ModelVersion]

    def __init__(self, *args: Any, versions: Sequence[ModelVersion], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offered = {version.uid: version for version in versions}
        self.fields["versions"].choices = [  # type: ignore[attr-defined]
            (uid, _version_words(version)) for uid, version in self.offered.items()
        ]
        for way in WAYS:
            use = forms.BooleanField(label=way.label, required=False)
            use.help_text = way.about
            self.fields[f"use_{way.name}"] = use
            for knob, value in way.knobs.items():
                self.fields[f"{way.name}_{knob}"] = _knob_field(knob, value)

    @property
    def ways(self) -> list[tuple[BoundField, list[BoundField]]]:
        """(the box of a way, its knobs), in the form's order."""
        return [
            (self[f"use_{way.name}"], [self[f"{way.name}_{knob}"] for knob in way.knobs])
            for way in WAYS
        ]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        chosen = [self.offered[uid] for uid in given.get("versions", ())]
        if len(chosen) > MOST_MODELS:
            self.add_error("versions", gettext("Choose %(most)s at most.") % {"most": MOST_MODELS})
        strategies = []
        for way in WAYS:
            if not given.get(f"use_{way.name}"):
                continue
            knobs = {
                knob: default
                if given.get(f"{way.name}_{knob}") is None
                else given[f"{way.name}_{knob}"]
                for knob, default in way.knobs.items()
            }
            strategies.append({"kind": way.kind, **knobs})
        if not 1 <= len(strategies) <= MOST_STRATEGIES:
            self.add_error(None, gettext("Choose a way to decode."))
        if self.errors:
            return given
        try:
            self.config = PlaygroundConfig(
                prompt=given["prompt"],
                layout=given["layout"],
                system=given["system"] if given["layout"] == "chat" else "",
                few_shot=given["few_shot"],
                models=tuple(str(version) for version in chosen),
                strategies=tuple(strategies),
                max_tokens=given["max_tokens"],
                seed=given["seed"],
            )
        except ConfigError as error:
            raise forms.ValidationError(str(error)) from error
        self.versions_chosen = chosen
        return given


def playground_initial(
    *, config: PlaygroundConfig | None, versions: Sequence[ModelVersion]
) -> dict[str, Any]:
    """What the form begins with: an earlier trial's settings, or a first choice of ways.

    Versions none of which has a chat template are talked to by examples.
    """
    initial: dict[str, Any] = {"versions": [version.uid for version in versions]}
    if config is None:
        talks = not versions or any(version.chat_template for version in versions)
        first = {"layout": "chat" if talks else "few_shot"}
        return initial | first | {"use_greedy": True, "use_top_p": True}
    initial["by_servers"] = any(config.servers)
    for name in ("layout", "prompt", "system", "few_shot", "max_tokens", "seed"):
        initial[name] = getattr(config, name)
    for strategy in config.strategies:
        way = _way_of(strategy)
        if way is not None:
            initial[f"use_{way.name}"] = True
            initial |= {f"{way.name}_{knob}": strategy[knob] for knob in way.knobs}
    return initial


def _knob_field(knob: str, value: float) -> forms.Field:
    word, least, most, step = _KNOBS[knob]
    widget = forms.NumberInput(attrs={"step": step})
    shared: dict[str, Any] = {"label": word, "required": False, "initial": value, "widget": widget}
    if knob in _WHOLE:
        return forms.IntegerField(min_value=int(least), max_value=int(most), **shared)
    return forms.FloatField(min_value=least, max_value=most, **shared)


def _way_of(strategy: Mapping[str, Any]) -> Way | None:
    """The line of the form that a strategy came from: the one with its kind and its very knobs."""
    for way in WAYS:
        if strategy.get("kind") == way.kind and strategy.keys() == {"kind", *way.knobs}:
            return way
    return None


def _version_words(version: ModelVersion) -> str:
    aliases = ", ".join(alias.name for alias in version.aliases.all())
    return f"{version} ({aliases})" if aliases else str(version)
