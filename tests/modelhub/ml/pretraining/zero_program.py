"""Pretraining that finds DeepSpeed in DEEPSPEED_SITE, a folder that no other test looks into.

Where it is installed among the others, accelerate imports it whenever a model is saved.
"""

import os
import sys
from pathlib import Path

from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.pretraining import drift_program

_NAMED = os.environ.get("DEEPSPEED_SITE", "")
SITE = _NAMED if _NAMED and Path(_NAMED, "deepspeed").is_dir() else ""


def main(run: RunDir) -> None:
    _site_add()
    pretraining.main(run)


def drifting(run: RunDir) -> None:
    """A weight of the second rank is changed behind a step: drift_program."""
    _site_add()
    drift_program.main(run)


def _site_add() -> None:
    if SITE:
        sys.path.append(SITE)
