"""Pretraining in which one rank's weights are no longer the others' from the third step on."""

import torch

from modelhub.ml.parallel import process_rank
from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.pretraining import training
from modelhub.ml.rundir import RunDir


def main(run: RunDir) -> None:
    taken = training.step_backward
    steps = 0

    def step_backward(model, *given):
        nonlocal steps
        steps += 1
        if steps == 3 and process_rank() == 1:
            with torch.no_grad():
                model.get_input_embeddings().weight[3, 5] += 1e-6
        return taken(model, *given)

    training.step_backward = step_backward
    pretraining.main(run)
