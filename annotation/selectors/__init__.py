"""What is read of annotation's rows, split by noun. Each says which queries it costs."""

from annotation.selectors.judgements import judgement_of
from annotation.selectors.payloads import (
    assignment_payload,
    candidate_payload,
    letter_of,
    turn_payload,
)
from annotation.selectors.people import (
    OPEN_AT_MOST,
    AnnotatorProgress,
    annotator_progress,
    desk_counts,
    members,
    memberships_of,
    open_count,
    submitted_today,
)
from annotation.selectors.queue import (
    BatchProgress,
    batch_progress,
    batches_to_ingest,
    qualification_is_wanted,
    queues_of,
    shown_order,
    tasks_open,
    tasks_open_in_turn,
)
from annotation.selectors.tasks import TaskCount, task_counts

__all__ = [
    "OPEN_AT_MOST",
    "AnnotatorProgress",
    "BatchProgress",
    "TaskCount",
    "annotator_progress",
    "assignment_payload",
    "batch_progress",
    "batches_to_ingest",
    "candidate_payload",
    "desk_counts",
    "judgement_of",
    "letter_of",
    "members",
    "memberships_of",
    "open_count",
    "qualification_is_wanted",
    "queues_of",
    "shown_order",
    "submitted_today",
    "task_counts",
    "tasks_open",
    "tasks_open_in_turn",
    "turn_payload",
]
