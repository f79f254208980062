"""The sample project: prompts of several kinds, written for Rondo."""

from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction

from annotation.models import Membership, Project
from annotation.services.projects import guideline_publish, membership_add, project_create
from annotation.services.prompts import prompts_import

SAMPLE_NAME = "Sample: short, helpful answers"
PROMPTS = Path(__file__).resolve().parent.parent / "sample" / "prompts.jsonl"
GUIDELINE = """\
Imagine the person who asked. **The best answer is the one they would thank you for.**

1. It answers what was asked, from its first sentence.
2. It is correct, and says so when it cannot know.
3. It is as short as it can be: most of these questions deserve 20 to 80 words.
4. It ends. An answer that breaks off in mid-sentence is worse than a plain one that is whole.

Put answers you cannot tell apart in the same lane.

Use *not acceptable* for answers that nobody should be given: harmful, abusive, or plain nonsense.
"""


@transaction.atomic
def sample_project_ensure(*, owner: User, name: str = SAMPLE_NAME) -> Project:
    """A project with the sample prompts and guidelines; `owner` manages it. Idempotent by name."""
    project = Project.objects.filter(name=name).first()
    if project is None:
        project = project_create(
            name=name,
            overlap=1,
            created_by=owner,
            description="Everyday questions, for learning Rondo and for its demo.",
        )
        guideline_publish(project=project, text=GUIDELINE, author=owner)
        with PROMPTS.open("rb") as lines:
            prompts_import(project=project, lines=lines, name=PROMPTS.name)
    elif not project.memberships.filter(user=owner).exists():
        membership_add(project=project, user=owner, role=Membership.Role.MANAGER)
    return project
