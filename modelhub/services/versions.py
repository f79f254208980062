"""Models, their versions, and the aliases that move between versions."""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.models import Alias, AliasMove, Artifact, Model, ModelVersion, Run
from modelhub.services.history import act_record

# Facts that are columns of a version; every other fact of a run stays in `facts`.
_COLUMNS: dict[str, type] = {
    "architecture": str,
    "parameters": int,
    "dtype": str,
    "context_tokens": int,
    "chat_template": str,
}


def model_name_check(name: str) -> None:
    """Raise ApplicationError unless the name is a slug of 1 to 80 characters."""
    try:
        Model._meta.get_field("name").clean(name, None)
    except ValidationError as error:
        raise ApplicationError(
            gettext("%(name)s cannot name a model: use letters, digits, - and _, at most 80.")
            % {"name": f"{name!r}"},
            {"field": "name"},
        ) from error


def model_get_or_create(*, name: str, description: str = "") -> Model:
    """The model of this name, made if need be. Raises ApplicationError for an impossible name."""
    model_name_check(name)
    model, _ = Model.objects.get_or_create(name=name, defaults={"description": description})
    return model


@transaction.atomic
def model_version_register(
    *,
    model: Model,
    role: str,
    artifact: Artifact,
    parent: ModelVersion | None,
    run: Run | None,
    facts: Mapping[str, Any],
    card: str = "",
) -> ModelVersion:
    """Give the model its next version, numbered from 1.

    `facts` holds architecture, parameters, dtype, context_tokens and, where there is one,
    chat_template; what else it holds is kept with the version. Registering the same artifact of
    the same run again returns the version that is there. Raises ApplicationError naming a fact
    that is missing or of another type.
    """
    # Numbers are given one at a time, under the model's lock.
    Model.objects.select_for_update().get(pk=model.pk)
    if run is not None:
        registered = model.versions.filter(run=run, artifact=artifact).first()
        if registered is not None:
            return registered
    if role not in ModelVersion.Role.values:
        raise ApplicationError(
            gettext("There is no version role %(role)s.") % {"role": f"{role!r}"}, {"field": "role"}
        )
    others = dict(facts)
    columns: dict[str, Any] = {}
    for name, wanted in _COLUMNS.items():
        value = others.pop(name, "" if name == "chat_template" else None)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ApplicationError(
                gettext("The version's %(name)s is %(value)s; wanted %(wanted)s.")
                % {"name": name, "value": f"{value!r}", "wanted": wanted.__name__},
                {"field": name},
            )
        columns[name] = value
    newest = model.versions.order_by("-number").first()
    return ModelVersion.objects.create(
        model=model,
        number=newest.number + 1 if newest else 1,
        role=role,
        artifact=artifact,
        parent=parent,
        run=run,
        card=card,
        facts=others,
        **columns,
    )


@transaction.atomic
def version_card_write(
    *, version: ModelVersion, text: str, license: str, actor: User | None
) -> ModelVersion:
    """Replace the words of a version's card and the name of its licence; what was measured stays.

    The weights do not change, nor their hash. The act is kept in the version's history.
    """
    kept = ModelVersion.objects.select_for_update().get(pk=version.pk)
    kept.card = text
    kept.facts = {name: value for name, value in kept.facts.items() if name != "license"}
    if license:
        kept.facts["license"] = license
    kept.save(update_fields=["card", "facts"])
    act_record(actor=actor, subject=kept, text="card written")
    return kept


@transaction.atomic
def alias_move(
    *, model: Model, name: str, version: ModelVersion, actor: User | None, reason: str
) -> Alias:
    """Point an alias of the model at one of its versions, keeping the move.

    Pointing it where it already points changes nothing. Raises ApplicationError for a version of
    another model or a name that is no slug.
    """
    if version.model_id != model.pk:
        raise ApplicationError(
            gettext("%(version)s is not a version of %(model)s.")
            % {"version": version, "model": model},
            {"field": "version"},
        )
    try:
        Alias._meta.get_field("name").clean(name, None)
    except ValidationError as error:
        raise ApplicationError(
            gettext("%(name)s cannot be an alias: use letters, digits, - and _, at most 40.")
            % {"name": f"{name!r}"},
            {"field": "name"},
        ) from error
    Model.objects.select_for_update().get(pk=model.pk)
    alias = model.aliases.select_related("version").filter(name=name).first()
    before = alias.version if alias else None
    if alias is None:
        alias = Alias.objects.create(model=model, name=name, version=version)
    elif before == version:
        return alias
    else:
        alias.version = version
        alias.save(update_fields=["version"])
    AliasMove.objects.create(
        alias=alias, before=before, after=version, actor=actor, reason=reason[:300]
    )
    act_record(actor=actor, subject=alias, text=f"moved to v{version.number}: {reason}")
    return alias
