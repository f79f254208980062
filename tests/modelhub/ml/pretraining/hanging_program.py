"""Pretraining whose second rank hangs three times: as it starts, behind step 4, behind the last."""

import time

from modelhub.ml.parallel import Processes, process_rank
from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.pretraining import training
from modelhub.ml.rundir import RunDir, program_run


def main(run: RunDir) -> None:
    made, taken, gathered = pretraining.model_make, training.step_backward, Processes.gather

    def wait_for_ever(where):
        mark = run.path / f"hung_{where}"
        if process_rank() == 1 and not mark.exists():
            mark.touch()
            time.sleep(3600)

    def model_make(*given):
        wait_for_ever("start")
        return made(*given)

    def step_backward(model, sources, samples, config, *given):
        if samples[0].number == 4 * config.blocks_per_step:
            wait_for_ever("step")
        return taken(model, sources, samples, config, *given)

    def gather(self, *given):
        wait_for_ever("end")
        return gathered(self, *given)

    pretraining.model_make = model_make
    training.step_backward = step_backward
    Processes.gather = gather
    pretraining.main(run)


if __name__ == "__main__":
    program_run(main)
