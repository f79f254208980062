"""Mixtures are kept under a name and the next number; a run that names one reads that one."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.models import Artifact, MixtureSource, SavedMixture
from modelhub.selectors.mixtures import MixturePlan, mixture_settings
from modelhub.services.numbering import numbered_create


def mixture_save(
    *, name: str, plan: MixturePlan, author: User | None, note: str = ""
) -> SavedMixture:
    """Keep a planned mixture under the next number of a name; the same as its newest is that one.

    Of simultaneous calls each gets a number of its own.
    """
    blends = [
        {
            "first_step": one.ask.first_step,
            "by": one.ask.by,
            "temperature": one.ask.temperature,
            "shares": list(one.asked),
            "sampled": list(one.sampled),
        }
        for one in plan.blends
    ]
    values = {
        "tokens": plan.ask.tokens,
        "block_tokens": plan.ask.block_tokens,
        "blocks_per_step": plan.ask.blocks_per_step,
        "blends": blends,
    }
    sources = [
        (one.set.output.pk, one.set.name, one.cap, plan.ask.kinds.get(one.set.uid, ""))
        for one in plan.sources
    ]

    def is_same(newest: SavedMixture) -> bool:
        own = newest.sources.values_list("output_id", "name", "epoch_cap", "kind")
        return list(own) == sources and all(
            getattr(newest, field) == value for field, value in values.items()
        )

    def create(number: int) -> SavedMixture:
        made = SavedMixture.objects.create(
            name=name, number=number, author=author, note=note[:300], **values
        )
        MixtureSource.objects.bulk_create(
            MixtureSource(
                mixture=made, place=place, output_id=key, name=called, epoch_cap=cap, kind=kind
            )
            for place, (key, called, cap, kind) in enumerate(sources)
        )
        return made

    return numbered_create(
        rows=SavedMixture.objects.filter(name=name), is_same=is_same, create=create
    )


def mixture_check(*, config: PretrainConfig, artifacts: Sequence[Artifact]) -> None:
    """A run that says it reads a saved mixture has its token sets, in its order, and its shares.

    Raises ApplicationError naming the setting that differs, or a mixture that is not.
    """
    stem, _, number = config.mixture.rpartition("@")
    is_number = number.isascii() and number.isdecimal() and len(number) < 9
    mixture = (
        SavedMixture.objects.filter(name=stem, number=int(number)).first() if is_number else None
    )
    if mixture is None:
        raise ApplicationError(
            gettext("There is no mixture %(name)s.") % {"name": f"{config.mixture!r}"},
            {"field": "settings.mixture"},
        )
    own = [one.output.artifact_id for one in mixture.sources.select_related("output")]
    if [one.pk for one in artifacts] != own:
        raise ApplicationError(
            gettext("%(mixture)s has other token sets, or another order of them.")
            % {"mixture": mixture},
            {"field": "inputs.tokens"},
        )
    wanted: Mapping[str, Any] = mixture_settings(mixture=mixture)
    for field in ("shares", "epoch_caps", "later_shares"):
        given = getattr(config, field)
        if (list(given) if isinstance(given, tuple) else given) != wanted[field]:
            raise ApplicationError(
                gettext(
                    "%(field)s differs from %(mixture)s: save the change as a mixture, or empty "
                    "the field mixture."
                )
                % {"field": field, "mixture": mixture},
                {"field": f"settings.{field}"},
            )
