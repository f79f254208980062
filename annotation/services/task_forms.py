"""How a project asks for a kind of task, as its manager sets it."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_noop as _

from annotation.models import Project, TaskForm
from annotation.task_forms import DialogueForm, FormError, form_read
from modelhub.models import Endpoint, ModelVersion


@transaction.atomic
def task_form_save(*, project: Project, kind: str, settings: Mapping[str, Any]) -> TaskForm:
    """Ask for a kind of task by these settings, from the next task shown on.

    What is missing of them is the kind's default. What was submitted stays as it was asked for.
    Raises FormError naming the field that does not fit, or what a dialogue needs of the hub and
    the hub does not have.
    """
    form = form_read(kind, settings)
    if isinstance(form, DialogueForm):
        for place, side in enumerate(form.sides):
            if not Endpoint.objects.filter(name=side.endpoint).exists():
                raise FormError(f"sides[{place}].endpoint", _("the hub has no such endpoint"))
            if side.version and not ModelVersion.objects.filter(uid=side.version).exists():
                raise FormError(f"sides[{place}].version", _("the hub has no such version"))
    row, _created = TaskForm.objects.update_or_create(
        project=project, kind=kind, defaults={"settings": form.as_json()}
    )
    return row
