"""Pretraining whose second rank is killed once, behind the fourth step."""

import os
import signal

from modelhub.ml.parallel import process_rank
from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.pretraining import training
from modelhub.ml.rundir import RunDir, program_run


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
    pretraining.main(run)


if __name__ == "__main__":
    program_run(main)
