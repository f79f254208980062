"""A project's prompts as launches read them: written down by side, and kept out of training.

As in a round: what is learnt from lies on the training side, and no other prompt comes there.
"""

from django.utils.translation import gettext, ngettext

from alignment.methods import Input
from annotation.models import Project, Prompt, Split
from annotation.services.batches import PROMPTS_NAME, prompts_store
from modelhub.errors import ApplicationError
from modelhub.ml.records import PromptRecord, RecordError, records_read
from modelhub.models import Artifact
from modelhub.storage import artifact_folder

HELD_OUT_ROLE = "evaluation_prompts"  # of a run's outputs: imported questions that are held out
_AT_ONCE = 500  # ids in one query


def side_store(*, project: Project, split: str, field: str) -> Artifact:
    """Write a side of the project's prompts down, those that a round may sample answers to.

    Raises ApplicationError at the field if there is none.
    """
    prompts = Prompt.objects.filter(project=project, split=split)
    prompts = prompts.exclude(source__in=Prompt.NEVER_SAMPLED)
    if not prompts.exists():
        raise ApplicationError(
            gettext("%(project)s has no prompts that are %(side)s.")
            % {"project": project, "side": Split(split).label},
            {"field": field},
        )
    return prompts_store(prompts=prompts.iterator())


def held_out_store(*, project: Project) -> Artifact:
    """Write down a project's held-out prompts, whoever wrote them: what may not stand in a corpus.

    Raises ApplicationError if there is none.
    """
    prompts = Prompt.objects.filter(project=project, split=Split.HELD_OUT).order_by("pk")
    if not prompts.exists():
        raise ApplicationError(
            gettext("%(project)s has no held-out prompts.") % {"project": project},
            {"field": "inputs.held_out"},
        )
    return prompts_store(prompts=prompts)


def learnt_check(*, input: Input, artifact: Artifact) -> None:
    """Raise ApplicationError if prompts that would come into training are not all for it, or are no
    prompts: what judges read, too, is kept as such.

    Prompts that no project knows are held out where the run that made them says so. A query for
    every 500 prompts.
    """
    if not input.is_learnt:
        return
    path = artifact_folder(artifact) / PROMPTS_NAME
    where = {"field": f"inputs.{input.role}"}
    try:
        uids = [one.prompt_id for one in records_read(path, PromptRecord)]
    except FileNotFoundError as error:
        raise ApplicationError(f"{input.title}: it holds no {PROMPTS_NAME}.", where) from error
    except RecordError as error:
        raise ApplicationError(f"{input.title}: {error}", where) from error
    others = len(uids) if artifact.made_by.filter(role=HELD_OUT_ROLE).exists() else 0
    others = others or sum(
        Prompt.objects.filter(uid__in=uids[start : start + _AT_ONCE])
        .exclude(split=Split.TRAIN)
        .count()
        for start in range(0, len(uids), _AT_ONCE)
    )
    if others:
        raise ApplicationError(
            ngettext(
                "%(number)s of the %(asked)s prompts is held out or for validation: nothing is"
                " trained on it. Choose a project’s prompts to train on.",
                "%(number)s of the %(asked)s prompts are held out or for validation: nothing is"
                " trained on them. Choose a project’s prompts to train on.",
                others,
            )
            % {"number": others, "asked": len(uids)},
            where,
        )
