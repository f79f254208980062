"""The forms of rounds: a campaign, a round's recipe, and why somebody did something."""

import dataclasses
import json
import math
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.utils.crypto import get_random_string
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from alignment.models import Campaign, Round
from alignment.recipe import STAGES, Recipe, recipe_dump, recipe_load
from alignment.services.campaigns import POLICY_ROLES
from annotation.models import Project
from annotation.policy import projects_managed
from modelhub.ml.configs import ConfigError
from modelhub.ml.records import json_strict
from modelhub.models import ModelVersion

_OVERRIDES = ("generate", "reward", "rejection", "sft", "ppo", "evaluate")


class CampaignForm(forms.Form):
    project = forms.ModelChoiceField(
        label=_("Project"),
        queryset=Project.objects.none(),
        to_field_name="uid",
        empty_label=_("– choose –"),
        help_text=_("Whose prompts are answered, and whose people rank the answers."),
    )
    name = forms.CharField(
        label=_("Name"), max_length=120, help_text=_("For example: Helpfulness, spring refresh.")
    )
    base_version = forms.ModelChoiceField(
        queryset=ModelVersion.objects.none(),
        to_field_name="uid",
        label=_("Start from"),
        empty_label=_("– choose –"),
        help_text=_("The policy the first round improves. New versions join its model in the hub."),
    )
    champion_alias = forms.SlugField(
        max_length=40,
        initial="champion",
        label=_("Alias of the champion"),
        help_text=_(
            "This name of the model moves to each version that a round promotes. It is one"
            " campaign's own: a second campaign on the same model takes another name."
        ),
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        projects = self.fields["project"]
        versions = self.fields["base_version"]
        assert isinstance(projects, forms.ModelChoiceField)  # noqa: S101 - declared above
        assert isinstance(versions, forms.ModelChoiceField)  # noqa: S101
        projects.queryset = projects_managed(user)
        versions.queryset = ModelVersion.objects.filter(role__in=POLICY_ROLES).select_related(
            "model"
        )


class ReasonForm(forms.Form):
    reason = forms.CharField(label=_("Reason"), max_length=1000, required=False)


class LadderField(forms.CharField):
    """Numbers with commas between: "0.7, 1.0" ↔ (0.7, 1.0)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=200, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(f"{one:g}" for one in value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        try:
            numbers = tuple(float(part) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise forms.ValidationError(
                gettext("Numbers with commas between, such as 0.7, 1.0.")
            ) from error
        if not all(math.isfinite(number) for number in numbers):
            raise forms.ValidationError(gettext("Numbers with commas between, such as 0.7, 1.0."))
        return numbers


class TagsField(forms.CharField):
    """Words with commas between ↔ a tuple of them."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        return tuple(
            part.strip() for part in str(super().to_python(value)).split(",") if part.strip()
        )


class OverridesField(forms.CharField):
    """A JSON object ↔ a dictionary; empty is {}."""

    widget = forms.Textarea

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, max_length=4000, **kwargs)
        self.widget.attrs |= {"rows": 3, "spellcheck": "false", "class": "mono"}

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return json.dumps(value, indent=1, ensure_ascii=False) if value else ""
        return value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        if not text.strip():
            return {}
        try:
            found = json_strict(text)
        except ValueError as error:
            raise forms.ValidationError(
                gettext("Not JSON: %(error)s") % {"error": error}
            ) from error
        if not isinstance(found, dict):
            raise forms.ValidationError(gettext('A JSON object, such as {"lr": 1e-5}.'))
        return found


class RecipeForm(forms.Form):
    """A recipe, field by field. `recipe` is there once the form is valid."""

    launch_key = forms.CharField(max_length=64, widget=forms.HiddenInput)

    prompt_tags = TagsField(
        required=False,
        label="Prompts with any of these tags",
        help_text="Commas between. Empty takes all prompts of the project.",
    )
    prompt_limit = forms.IntegerField(
        min_value=0,
        label=_("At most so many prompts"),
        help_text=_(
            "Drawn so that each split keeps its share and none falls below what it needs,"
            " which can make it a few more. 0 takes all."
        ),
    )
    engine = forms.ChoiceField(
        choices=[
            ("auto", _("vLLM where installed, else transformers")),
            ("vllm", "vLLM"),
            ("transformers", "transformers"),
        ],
        label=_("Sampling engine"),
    )
    max_tokens = forms.IntegerField(
        min_value=1, label=_("Longest answer"), help_text=_("Tokens. Longer answers are cut off.")
    )
    samples = forms.IntegerField(
        min_value=2,
        max_value=16,
        label=_("Answers to rank per prompt"),
        help_text=_("K. Each ranking of K answers holds K(K−1)/2 comparisons."),
    )
    temperatures = LadderField(
        label="Their temperatures",
        help_text="A ladder: the answers take these in turn, so that they differ.",
    )
    overlap = forms.IntegerField(
        min_value=1,
        max_value=50,
        label=_("People per task"),
        help_text=_("How many rank each prompt."),
    )
    minimum_rankings = forms.IntegerField(
        min_value=1,
        label=_("Fewest rankings"),
        help_text=_("Annotating cannot be closed with fewer accepted rankings than this."),
    )
    reward_accuracy_floor = forms.FloatField(
        min_value=0,
        max_value=1,
        label=_("Least held-out accuracy"),
        help_text=_(
            "A reward model below it is not used: the round asks for more labels."
            " 0.5 is chance; 0 sets no test."
        ),
    )
    reward_above_chance = forms.BooleanField(
        required=False,
        label=_("Its interval must lie above chance"),
        help_text=_("Strict with few held-out rankings."),
    )
    improving = forms.ChoiceField(
        choices=[
            ("rejection", _("Rejection sampling")),
            ("ppo", _("PPO")),
            ("rejection+ppo", _("Rejection sampling, then PPO")),
        ],
        label=_("By"),
        help_text=_("Llama 2 took the first up to its fourth version, and the third from then on."),
    )
    improving_samples = forms.IntegerField(
        min_value=1,
        max_value=1024,
        label=_("Fresh answers per train prompt"),
        help_text=_("N. The reward model keeps the best of them."),
    )
    improving_temperatures = LadderField(label="Their temperatures", help_text="A ladder, again.")
    keep = forms.IntegerField(
        min_value=1, label=_("Kept of each prompt"), help_text=_("The best so many are trained on.")
    )
    pool_earlier_rounds = forms.BooleanField(
        required=False,
        label=_("The bests of earlier rounds compete too"),
        help_text=_("Without them a policy forgets what earlier rounds taught it (Llama 2)."),
    )
    evaluation_samples = forms.IntegerField(
        min_value=1,
        max_value=64,
        label=_("Answers per held-out prompt"),
        help_text=_("Of the old policy and of the new, to compare them."),
    )
    evaluation_temperature = forms.FloatField(
        min_value=0,
        max_value=5,
        label=_("Their temperature"),
        help_text=_("The same for both. At 1 the KL is the policies’ own."),
    )
    kl_limit = forms.FloatField(
        min_value=0,
        label=_("Largest KL"),
        help_text=_(
            "Nats per answer between the policies. An automatic decision rejects above it;"
            " 0 sets no limit."
        ),
    )
    human_gates = forms.MultipleChoiceField(
        choices=[(stage, Round.State(stage).label) for stage in STAGES],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label=_("Wait for a person after"),
        help_text=_(
            "Without “deciding”, the new policy is promoted by itself if its reward rose for"
            " certain and the KL is within the limit."
        ),
    )
    seed = forms.IntegerField(
        label=_("Seed"), help_text=_("The same recipe and seed sample the same.")
    )
    generate = OverridesField(
        label="Sampling", help_text='Fields of GenerateConfig, for example {"top_p": 0.9}.'
    )
    reward = OverridesField(
        label="Reward model", help_text='Fields of RewardConfig, for example {"epochs": 2}.'
    )
    rejection = OverridesField(label="Selection", help_text="Fields of RejectionConfig.")
    sft = OverridesField(
        label="Fine-tuning",
        help_text='Fields of SftConfig, for example {"adapter": "lora", "lr": 1e-4}.',
    )
    ppo = OverridesField(
        label=_("PPO"), help_text=_('Fields of PpoConfig, for example {"kl_coef": 0.01}.')
    )
    evaluate = OverridesField(label="Evaluation", help_text="Fields of EvaluateConfig.")

    recipe: Recipe

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        kwargs.setdefault("initial", recipe_initial(campaign))
        super().__init__(*args, **kwargs)

    def groups(self) -> list[tuple[str, str, list[forms.BoundField]]]:
        """The fields as the page lays them: (title, what it is about, fields)."""
        return [
            (str(title), str(about), [self[name] for name in names])
            for title, about, names in _GROUPS
        ]

    def overrides(self) -> list[forms.BoundField]:
        return [self[name] for name in _OVERRIDES]

    def clean(self) -> dict[str, Any]:
        """Build the recipe; what it refuses is shown at the field it names."""
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        names = {field.name for field in dataclasses.fields(Recipe)}
        values = {name: value for name, value in cleaned.items() if name in names}
        values["human_gates"] = tuple(stage for stage in STAGES if stage in values["human_gates"])
        try:
            self.recipe = Recipe(**values)
        except ConfigError as error:
            where, _, what = str(error).removeprefix("recipe.").partition(": ")
            field = where.split(".")[0]
            self.add_error(field if field in self.fields else None, f"{where}: {what}")
        return cleaned


_GROUPS: list[tuple[Promise, Promise, tuple[str, ...]]] = [
    (
        _("Prompts and answers"),
        _("What the policy answers, and how."),
        ("prompt_tags", "prompt_limit", "engine", "max_tokens", "samples", "temperatures"),
    ),
    (_("Annotating"), _("What people do."), ("overlap", "minimum_rankings")),
    (
        _("Reward model"),
        _("When it may be trusted."),
        ("reward_accuracy_floor", "reward_above_chance"),
    ),
    (
        _("Improving"),
        _("Rejection sampling is fine-tuning on the best of many answers."),
        (
            "improving",
            "improving_samples",
            "improving_temperatures",
            "keep",
            "pool_earlier_rounds",
        ),
    ),
    (
        _("Evaluating and deciding"),
        _("The new policy beside the old, on held-out prompts."),
        ("evaluation_samples", "evaluation_temperature", "kl_limit", "seed", "human_gates"),
    ),
]


def recipe_initial(campaign: Campaign) -> dict[str, Any]:
    """The previous round's recipe, or the defaults with the project's overlap; a new launch key."""
    newest = campaign.rounds.order_by("-number").first()
    recipe = recipe_load(newest.recipe) if newest else Recipe(overlap=campaign.project.overlap)
    return {**recipe_dump(recipe), "launch_key": get_random_string(32)}
