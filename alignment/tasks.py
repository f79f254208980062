"""What beat, pages and ended runs ask of rounds."""

import logging

from alignment.models import Round
from alignment.selectors.rounds import rounds_to_advance
from alignment.services.rounds import round_advance
from modelhub.doorbell import doorbell
from modelhub.tasks import ring_queued_runs

logger = logging.getLogger(__name__)


@doorbell
def advance_round(round_id: int) -> None:
    round_advance(round=Round.objects.get(pk=round_id))
    ring_queued_runs()


@doorbell
def advance_rounds() -> None:
    """Every round that may have something to do; one that cannot go on does not stop the others."""
    for round in rounds_to_advance():
        try:
            round_advance(round=round)
        except Exception:
            logger.exception("round %s could not be advanced", round.uid)
    ring_queued_runs()
