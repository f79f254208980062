"""A small training program, as one process and as several, for the tests of modelhub.ml.parallel.

Packed rows of a tiny Llama, its backbone and its head called apart as shared rows do; the loss is a
sum over the step divided by the step's count. Settings are JSON in RUN_DIR/config.json.
"""

import copy
import json
import os
import signal
from typing import Any

import torch
import torch.nn.functional as F

from modelhub.ml import parallel
from modelhub.ml.checkpoint import (
    model_load,
    model_save,
    tokenizer_load,
    training_state_load,
    training_state_save,
)
from modelhub.ml.parallel import processes_start
from modelhub.ml.rundir import RunDir, program_run


def rows_of(step: int, rows: int) -> list[torch.Tensor]:
    """The token ids of a step's rows, of different lengths, the same on every rank."""
    generator = torch.Generator().manual_seed(step)
    lengths = [5 + 7 * number for number in range(rows)]
    return [torch.randint(3, 250, (length,), generator=generator) for length in lengths]


def row_loss(model: Any, row_T: torch.Tensor) -> torch.Tensor:
    hidden_TC = model.model(input_ids=row_T[None]).last_hidden_state[0]
    logits_TV = model.get_output_embeddings()(hidden_TC[:-1])
    return F.cross_entropy(logits_TV, row_T[1:], reduction="sum")


def main(run: RunDir) -> None:
    settings = json.loads((run.path / "config.json").read_text())["config"]
    if settings.get("whole"):  # a library that is asked to shard and does not
        parallel.fully_shard = lambda module, **_: module
    if settings.get("unwatched"):
        parallel.sharded_check = lambda model: None
    processes = processes_start()
    torch.manual_seed(0)
    base = settings["base"]
    model = model_load(base, dtype="float32")
    model.model.layers[0].mlp.requires_grad_(not settings.get("frozen"))
    whole = copy.deepcopy(model)
    if settings.get("drift") and processes.rank == 1:
        with torch.no_grad():
            model.model.norm.weight[3] += 1e-6
    processes.prepare(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.1, fused=True)
    start, losses = 0, []
    if (latest := run.checkpoint_latest()) is not None:
        losses = training_state_load(latest[1], model=model, optimizer=optimizer)["losses"]
        start = latest[0]
    model.train()
    for step in range(start, settings["steps"]):
        rows = rows_of(step, settings.get("rows", 3))
        count = sum(len(row) - 1 for row in rows)
        loss_sum = passes = 0.0
        for row, weight in processes.share(rows, cost=len):
            loss = processes.forward(row_loss, model, row.to(processes.device))
            (weight * loss / count).backward()
            loss_sum += weight * float(loss.detach())
            passes += 1
        processes.gradients_sum(weights)
        norm = processes.gradients_clip(weights, 0.5)
        figures = processes.sum({"loss": loss_sum, "passes": passes})
        losses = [*losses, figures["loss"] / count]
        run.metric(
            step + 1,
            {"loss": losses[-1], "grad_norm": float(norm), "passes": figures["passes"]},
        )
        optimizer.step()
        optimizer.zero_grad()

        def write(folder: Any, losses: list[float] = losses) -> None:
            training_state_save(folder, model=model, optimizer=optimizer, values={"losses": losses})

        run.checkpoint_publish(step + 1, write)
        if settings.get("die_behind") == step + 1 and processes.rank == processes.world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
    published = processes.gather(model, lambda: whole)
    if published is None:
        return
    folder = run.output("model")
    model_save(published, tokenizer_load(base), folder, dtype="float32")
    run.succeed(outputs={"model": "model"}, result={"losses": losses})


if __name__ == "__main__":
    program_run(main)
