"""How a project hands out its tasks and whom it lets in."""

from django.db import transaction
from django.utils.translation import gettext

from annotation.models import Project
from modelhub.errors import ApplicationError

MAX_OVERLAP = 50
MAX_GOLD_SHARE = 0.5
MAX_MIRRORED_SHARE = 0.5
MAX_SKIPS_TO_REVIEW = 100


@transaction.atomic
def project_settings_change(
    *,
    project: Project,
    overlap: int,
    queue_order: str,
    gold_share: float,
    qualification_pass: float,
    mirrored_share: float,
    skips_to_review: int,
) -> Project:
    """Change how a project's tasks are handed out, from the next hand-out on.

    overlap: people for each task; of the tasks made from now on, those there are keep theirs.
    gold_share: of what each person gets, how much has a known answer, 0 to MAX_GOLD_SHARE.
    qualification_pass: the mean score on the test that lets in, 0 to 1; 0 asks for no test.
    mirrored_share: of what each person gets, how much is a pair that they judged before, with its
    sides swapped, 0 to MAX_MIRRORED_SHARE.
    skips_to_review: how many people skip a task before a reviewer looks at it; 0 for never.
    Raises ApplicationError naming the field.
    """
    if not 1 <= overlap <= MAX_OVERLAP:
        raise ApplicationError(
            gettext("overlap is the people for each task, 1 to %(max_overlap)s; got %(overlap)s.")
            % {"max_overlap": MAX_OVERLAP, "overlap": overlap},
            {"field": "overlap"},
        )
    if queue_order not in Project.Order.values:
        raise ApplicationError(
            gettext("An order is one of %(names)s; got %(queue_order)s.")
            % {"names": ", ".join(Project.Order.values), "queue_order": f"{queue_order!r}"},
            {"field": "queue_order"},
        )
    if not 0 <= gold_share <= MAX_GOLD_SHARE:  # so is NaN refused
        raise ApplicationError(
            gettext("The share of known answers is 0 to %(max_gold_share)s; got %(gold_share)s.")
            % {"max_gold_share": MAX_GOLD_SHARE, "gold_share": gold_share},
            {"field": "gold_share"},
        )
    if not 0 <= qualification_pass <= 1:
        raise ApplicationError(
            gettext("The score that passes is 0 to 1; got %(qualification_pass)s.")
            % {"qualification_pass": qualification_pass},
            {"field": "qualification_pass"},
        )
    if not 0 <= mirrored_share <= MAX_MIRRORED_SHARE:
        raise ApplicationError(
            gettext(
                "The share of mirrored pairs is 0 to %(max_mirrored_share)s; "
                "got %(mirrored_share)s."
            )
            % {"max_mirrored_share": MAX_MIRRORED_SHARE, "mirrored_share": mirrored_share},
            {"field": "mirrored_share"},
        )
    if not 0 <= skips_to_review <= MAX_SKIPS_TO_REVIEW:
        raise ApplicationError(
            gettext("Skips are 0 to %(max_skips)s; got %(skips)s.")
            % {"max_skips": MAX_SKIPS_TO_REVIEW, "skips": skips_to_review},
            {"field": "skips_to_review"},
        )
    project.overlap, project.queue_order = overlap, queue_order
    project.gold_share, project.qualification_pass = gold_share, qualification_pass
    project.mirrored_share, project.skips_to_review = mirrored_share, skips_to_review
    project.save(
        update_fields=[
            *("overlap", "queue_order", "gold_share", "qualification_pass"),
            *("mirrored_share", "skips_to_review"),
        ]
    )
    return project
