"""Campaigns: the improvement of one policy on one project."""

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.text import slugify
from django.utils.translation import gettext

from alignment.models import Campaign
from annotation.models import Project
from modelhub.errors import ApplicationError
from modelhub.models import Model, ModelVersion
from modelhub.selectors.uses import version_use_check
from modelhub.services.versions import alias_move, model_get_or_create

POLICY_ROLES = (ModelVersion.Role.BASE, ModelVersion.Role.POLICY)


@transaction.atomic
def campaign_create(
    *,
    project: Project,
    name: str,
    base_version: ModelVersion,
    created_by: User | None = None,
    policy_model: Model | None = None,
    reward_model: Model | None = None,
    champion_alias: str = "champion",
) -> Campaign:
    """A campaign that starts from `base_version`, to which its champion alias moves.

    New policies become versions of `policy_model` (the base's own model unless given), reward
    models of `reward_model` (named after it unless given). Raises ApplicationError if the name is
    empty, the version no policy, or the alias on that model already another campaign's: two
    campaigns that move one name would undo each other.
    """
    name = name.strip()
    if not name:
        raise ApplicationError(gettext("A campaign needs a name."), {"field": "name"})
    if base_version.role not in POLICY_ROLES:
        raise ApplicationError(
            gettext("%(base_version)s is a %(role)s model; a campaign starts from a policy.")
            % {"base_version": base_version, "role": base_version.role},
            {"field": "base_version"},
        )
    version_use_check(version=base_version, program="campaign", field="base_version")
    alias = slugify(champion_alias)
    if not alias or alias != champion_alias:
        raise ApplicationError(
            gettext("An alias is made of lower-case letters, digits, hyphens and underscores."),
            {"field": "champion_alias"},
        )
    policy_model = policy_model or base_version.model
    # Held until the end, so that two campaigns cannot take the same alias at once.
    Model.objects.select_for_update().get(pk=policy_model.pk)
    taken = Campaign.objects.filter(policy_model=policy_model, champion_alias=alias).first()
    if taken is not None:
        raise ApplicationError(
            gettext(
                "The alias %(alias)s of %(policy_model)s is another campaign's. Choose another "
                "alias."
            )
            % {"alias": alias, "policy_model": policy_model},
            {"field": "champion_alias"},
        )
    if reward_model is None:
        reward_model = model_get_or_create(
            name=f"{policy_model.name[:73]}-reward",
            description=f"Reward models for {policy_model.name}.",
        )
    campaign = Campaign.objects.create(
        project=project,
        name=name,
        base_version=base_version,
        policy_model=policy_model,
        reward_model=reward_model,
        champion_alias=alias,
        created_by=created_by,
    )
    if base_version.model_id == policy_model.pk:
        alias_move(
            model=policy_model,
            name=alias,
            version=base_version,
            actor=created_by,
            reason=f"campaign “{name}” starts from it",
        )
    return campaign
