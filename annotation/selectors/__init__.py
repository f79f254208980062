"""What is read of annotation's rows, split by noun. Each says which queries it costs."""

from annotation.selectors.payloads import letter_of, rank_payload
from annotation.selectors.people import (
    OPEN_AT_MOST,
    AnnotatorProgress,
    annotator_progress,
    members,
    memberships_of,
)
from annotation.selectors.queue import (
    BatchProgress,
    batch_progress,
    batches_to_ingest,
    shown_order,
    tasks_open,
)

__all__ = [
    "OPEN_AT_MOST",
    "AnnotatorProgress",
    "BatchProgress",
    "annotator_progress",
    "batch_progress",
    "batches_to_ingest",
    "letter_of",
    "members",
    "memberships_of",
    "rank_payload",
    "shown_order",
    "tasks_open",
]
