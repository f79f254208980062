"""What the scheduler rings annotation for."""

import logging

from annotation import selectors
from annotation.services.assignments import assignments_expire
from annotation.services.batches import candidate_batch_ingest
from modelhub.doorbell import doorbell
from modelhub.errors import ApplicationError

logger = logging.getLogger(__name__)


@doorbell
def expire_assignments() -> None:
    assignments_expire()


@doorbell
def ingest_batches() -> None:
    """Take in what finished runs wrote. One batch that is refused does not stop the others."""
    for batch in selectors.batches_to_ingest():
        try:
            candidate_batch_ingest(batch=batch)
        except ApplicationError as error:
            logger.error("%s", error.message)
