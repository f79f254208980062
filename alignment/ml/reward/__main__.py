"""`python -m alignment.ml.reward RUN_DIR`."""

from alignment.ml.reward.training import main
from modelhub.ml.rundir import program_run

program_run(main)
