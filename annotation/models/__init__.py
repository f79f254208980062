"""Prompts, the candidates written for them, and what people said of those.

Knows model versions (who wrote a candidate), and no reward model or round.
"""

from annotation.models.datasets import PreferenceDataset
from annotation.models.projects import (
    Guideline,
    KeyBindings,
    Membership,
    Notification,
    Project,
    ProjectToken,
    SignInLink,
)
from annotation.models.prompts import (
    IMPORT_ENGINE,
    IMPORTED,
    Candidate,
    CandidateBatch,
    Prompt,
    Proposal,
    Split,
)
from annotation.models.reviews import Adjudication, Question, Report, Review
from annotation.models.submissions import (
    Comparison,
    Degree,
    Demonstration,
    Dialogue,
    DialogueTurn,
    Edit,
    Ranking,
    Rating,
    Submission,
    SubmissionRevision,
)
from annotation.models.tasks import (
    COVERED,
    GOLD,
    KNOWN,
    OPEN,
    QUALIFICATION,
    WORK,
    Assignment,
    Task,
    TaskCandidate,
    TaskForm,
    lottery_draw,
)

__all__ = [
    "COVERED",
    "GOLD",
    "IMPORTED",
    "IMPORT_ENGINE",
    "KNOWN",
    "OPEN",
    "QUALIFICATION",
    "WORK",
    "Adjudication",
    "Assignment",
    "Candidate",
    "CandidateBatch",
    "Comparison",
    "Degree",
    "Demonstration",
    "Dialogue",
    "DialogueTurn",
    "Edit",
    "Guideline",
    "KeyBindings",
    "Membership",
    "Notification",
    "PreferenceDataset",
    "Project",
    "ProjectToken",
    "Prompt",
    "Proposal",
    "Question",
    "Ranking",
    "Rating",
    "Report",
    "Review",
    "SignInLink",
    "Split",
    "Submission",
    "SubmissionRevision",
    "Task",
    "TaskCandidate",
    "TaskForm",
    "lottery_draw",
]
