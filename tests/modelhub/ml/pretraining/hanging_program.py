"""Pretraining whose second rank hangs three times: as it starts, behind step 4, behind the last.

As it hangs, its watchdog is told to lose patience at once: what is waited for in the test is no
longer than that, and however slow a busy machine is, nothing that goes on is taken for a hang.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from modelhub.ml.parallel import Processes, process_rank
from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.pretraining import training
from modelhub.ml.pretraining.watchdog import Watchdog
from modelhub.ml.rundir import RunDir, program_run


def main(run: RunDir) -> None:
    made, taken, gathered = pretraining.model_make, training.step_backward, Processes.gather
    watched = pretraining.watchdog
    dogs: list[Watchdog] = []

    @contextmanager
    def watchdog(timeout_s: float) -> Iterator[Watchdog]:
        with watched(timeout_s) as dog:
            dogs.append(dog)
            yield dog

    def wait_for_ever(where):
        mark = run.path / f"hung_{where}"
        if process_rank() == 1 and not mark.exists():
            mark.touch()
            dogs[0].timeout_s = 0.2
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

    pretraining.watchdog = watchdog
    pretraining.model_make = model_make
    training.step_backward = step_backward
    Processes.gather = gather
    pretraining.main(run)


if __name__ == "__main__":
    program_run(main)
