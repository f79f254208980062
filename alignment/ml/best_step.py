"""Which step's weights are published: those whose answers a reward liked best.

Ouyang et al. 2022 (arXiv:2203.02155) choose a fine-tuned model by its reward score on validation
prompts, appendix C.1, for its loss rises long before its answers get worse; and policies trained
against a reward by its score on held-out prompts. The weights of the best step so far lie beside
the checkpoints, so that a killed run goes on to the same choice.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import path_sync
from modelhub.ml.parallel import ALONE, Processes, barrier, tensor_placed, tensor_whole
from modelhub.ml.rundir import NotFinite, RunDir

_TIMEOUT_S = 600.0  # for the first process to write the weights
_KEPT = 3  # the best as of so many checkpoints: those that are there, and the one being written


class BestStep:
    """Scores by step, and the weights of the highest, the earliest of equal ones."""

    def __init__(
        self, run: RunDir, weights: Sequence[Tensor], processes: Processes = ALONE
    ) -> None:
        """weights: those that are trained, as they are whenever a step is seen. They are kept
        whole, so that a run goes on with another number of processes."""
        self._folder = run.path / "checkpoints" / "best"
        self._folder.mkdir(exist_ok=True)
        self._weights, self._processes = weights, processes
        self._kept: list[int] = []  # the best step as of the last checkpoints
        self.scores: list[tuple[int, float]] = []

    @property
    def best(self) -> tuple[int, float]:
        """(step, score) of the highest score."""
        return max(self.scores, key=lambda one: (one[1], -one[0]))

    def see(self, step: int, score: float) -> None:
        """Take note of a step's score, and of the weights if it is the best so far.

        Every process calls it, with the same score. Raises NotFinite for one that is not finite.
        """
        if not math.isfinite(score):
            raise NotFinite(f"the score by which a step is chosen is {score} at step {step}")
        self.scores.append((step, score))
        if self.best[0] == step:
            whole = {
                str(place): tensor_whole(one.detach()).cpu().contiguous()
                for place, one in enumerate(self._weights)
            }
            if self._processes.rank == 0:
                path = self._path(step)
                written = path.with_suffix(".tmp")
                save_file(whole, written)
                path_sync(written)
                written.replace(path)
                path_sync(self._folder)
            barrier(timeout_s=_TIMEOUT_S)

    @torch.no_grad()
    def take(self) -> None:
        """Give the weights what they were at the best step."""
        saved = load_file(self._path(self.best[0]))
        for place, weight in enumerate(self._weights):
            weight.copy_(tensor_placed(saved[str(place)], weight))

    def state(self) -> dict[str, Any]:
        """As JSON values, for a checkpoint that is about to be written; weights that no checkpoint
        needs any more are let go."""
        if self.scores:
            self._kept = [*self._kept, self.best[0]][-_KEPT:]
        wanted = {self._path(step).name for step in self._kept}
        for path in self._folder.glob("step-*") if self._processes.rank == 0 else ():
            if path.name not in wanted:
                path.unlink()
        return {"scores": [list(one) for one in self.scores], "kept": self._kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises RefusedError if the best step's weights are not there, or not whole."""
        self.scores = [(step, score) for step, score in state["scores"]]
        self._kept = list(state["kept"])
        if not self.scores:
            return
        path = self._path(self.best[0])
        try:
            with safe_open(path, "pt"):  # the header's sizes are held against the file's
                pass
        except (OSError, SafetensorError) as error:
            raise RefusedError(
                f"checkpoints/best/{path.name}, the best step's weights, cannot be read: {error}. "
                "Remove the folder checkpoints to begin the run anew"
            ) from error

    def described(self) -> dict[str, Any]:
        """What was chosen, and from what, for a run's result."""
        step, score = self.best
        return {
            "published_step": step,
            "published_step_score": score,
            "scores_by_step": [{"step": step, "score": score} for step, score in self.scores],
        }

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"
