"""Pretraining whose second rank hangs once behind the fourth step, and is killed there once."""

import os
import signal

from modelhub.ml.parallel import process_rank
from modelhub.ml.pretraining import training
from modelhub.ml.rundir import RunDir, program_run
from tests.modelhub.ml.pretraining import hanging_program


def main(run: RunDir) -> None:
    died = run.path / "died"
    taken = training.step_backward

    def step_backward(model, sources, samples, config, *given):
        is_due = samples[0].number == 4 * config.blocks_per_step and process_rank() == 1
        if is_due and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return taken(model, sources, samples, config, *given)

    training.step_backward = step_backward
    hanging_program.main(run)


if __name__ == "__main__":
    program_run(main)
