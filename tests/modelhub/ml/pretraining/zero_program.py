"""Pretraining that finds DeepSpeed in DEEPSPEED_SITE, a folder that no other test looks into.

Where it is installed among the others, accelerate imports it whenever a model is saved.
"""

import os
import sys
from pathlib import Path

from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.rundir import RunDir

_NAMED = os.environ.get("DEEPSPEED_SITE", "")
SITE = _NAMED if _NAMED and Path(_NAMED, "deepspeed").is_dir() else ""


def main(run: RunDir) -> None:
    if SITE:
        sys.path.append(SITE)
    pretraining.main(run)
