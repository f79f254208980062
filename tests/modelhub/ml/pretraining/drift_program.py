"""Pretraining in which a weight of the second rank is changed: behind a step.

The file `drift` of the run's directory: the end of the weight's name, and the step.
"""

import torch
from torch.distributed.tensor import DTensor

from modelhub.ml.parallel import process_rank
from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.pretraining import training
from modelhub.ml.rundir import RunDir


def main(run: RunDir) -> None:
    end, at = (run.path / "drift").read_text().split(",")
    taken = training.count  # behind the optimizer's step: ZeRO's would undo it

    def count(progress, *given, **named):
        taken(progress, *given, **named)
        if progress.step == int(at) and process_rank() == 1:
            weights = [one for name, one in MODELS[0].named_parameters() if name.endswith(end)]
            for weight in weights:
                own = weight.detach()
                own = own.to_local() if isinstance(own, DTensor) else own
                own.view(-1)[0] += 1e-6

    started = training.train

    def train(run, config, model, *given, **named):
        MODELS.append(model)
        return started(run, config, model, *given, **named)

    MODELS: list[torch.nn.Module] = []
    training.count = count
    pretraining.train = train
    pretraining.main(run)
