"""What a file of prompts is called: by the project that they are of, and their side."""

from itertools import islice

from django.contrib.auth.models import User
from django.utils.translation import gettext

from alignment.selectors.launches import ROWS
from annotation.models import Prompt
from annotation.policy import projects_managed
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import PromptRecord, RecordError, records_read
from modelhub.models import Artifact
from modelhub.storage import artifact_folder

_NAME = "prompts.jsonl"
_LOOKED_AT = 200  # prompts of a file, which come in no order: every side has some among them


def prompts_title(*, artifact: Artifact, user: User) -> str:
    """Of whose prompts a file is and on which side they are, or "" where no project has them.

    A project that the user does not manage is not named. Two queries, and the file's beginning.
    """
    try:
        path = artifact_folder(artifact) / _NAME
        uids = [one.prompt_id for one in islice(records_read(path, PromptRecord), _LOOKED_AT)]
    except (OSError, IntegrityError, RecordError):
        return ""
    found = Prompt.objects.filter(uid__in=uids).order_by()
    sides = list(found.values_list("project__pk", "project__name", "split").distinct())
    if not sides:
        return ""
    mine = projects_managed(user).filter(pk__in={pk for pk, _, _ in sides})
    managed = set(mine.values_list("pk", flat=True))
    names = {name if pk in managed else gettext("another project") for pk, name, _ in sides}
    splits = {split for _, _, split in sides}
    which = ROWS[splits.pop()] if len(splits) == 1 else gettext("its prompts")
    return f"{', '.join(sorted(names))}: {which}"
