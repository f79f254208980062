"""The queue as one writes it first: it looks, and then it acts. The storm must catch it.

Kept as a mutant: if the storm ever passes with this, the storm has lost its teeth.
"""

import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from annotation.models import Assignment, Membership, Ranking, Submission, Task


def assignment_next(*, membership: Membership) -> Assignment | None:
    now = timezone.now()
    Assignment.objects.filter(state="live", lease_until__lt=now).update(state="expired")
    for task in Task.objects.filter(project=membership.project_id).order_by("id"):
        if task.assignments.filter(annotator=membership).exists():
            continue
        live = task.assignments.filter(state="live").count()
        done = task.submissions.count()
        if live + done < task.overlap:
            time.sleep(0.001)  # what rendering or a slow disk takes between looking and acting
            return Assignment.objects.create(
                task=task,
                annotator=membership,
                lease_until=now + timedelta(seconds=settings.ASSIGNMENT_LEASE_S),
                shuffle_seed=1,
            )
    return None


def ranking_submit(*, assignment: Assignment, tiers: Any, rationale: str) -> Submission:
    assignment.state = Assignment.State.SUBMITTED
    assignment.save()
    submission = Submission.objects.create(
        assignment=assignment,
        task_id=assignment.task_id,
        annotator_id=assignment.annotator_id,
        status=Submission.Status.ACCEPTED,
        shown_order=[],
        rationale=rationale,
    )
    Ranking.objects.create(submission=submission, tiers=tiers)
    return submission
