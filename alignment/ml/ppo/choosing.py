"""The policy that is published, chosen by its score on prompts held out to choose by."""

from collections.abc import Callable, Sequence
from statistics import fmean

from alignment.ml.best_step import BestStep
from alignment.ml.configs import OnlineSettings
from alignment.ml.ppo.sampling import LaidPrompt
from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import RunDir


class Choosing:
    """Scores the policy now and then, and keeps the best one."""

    def __init__(
        self,
        best: BestStep,
        *,
        refresh: Callable[[int], object],
        evaluate: Callable[[], list[list[float]]],
        swap: Callable[[], None] = lambda: None,
    ) -> None:
        """refresh: gives the engine the actor's weights, told the step. evaluate: scores of the
        engine's answers to the prompts to choose by. swap: puts what would be published in the
        actor's place, and called again takes it out."""
        self.best = best
        self._refresh, self._evaluate, self._swap = refresh, evaluate, swap

    def look(self, run: RunDir, step: int) -> None:
        """Score the policy as it is behind a step, counted from 1."""
        self._swap()
        self._refresh(step)
        score = fmean(fmean(own) for own in self._evaluate())
        self.best.see(step, score)
        self._swap()
        run.metric(step, {"evaluation/scores": score})
        print(f"step {step}: evaluation score {score:.4g}, best at step {self.best.best[0]}")

    def end(self, run: RunDir, step: int) -> None:
        """Score the last policy too, and give the actor the best one's weights."""
        if not self.best.scores or self.best.scores[-1][0] != step:
            self.look(run, step)
        self.best.take()


def prompts_part(
    held_out: Sequence[LaidPrompt], config: OnlineSettings
) -> tuple[Sequence[LaidPrompt], Sequence[LaidPrompt]]:
    """(prompts to choose by, prompts to report on): the best of several scores is too good to be a
    report. Every other one, and none to choose by where nothing is chosen.

    Raises RefusedError if there are too few for both.
    """
    if not config.evaluate_every_steps:
        return [], held_out
    if len(held_out) < 4:
        raise RefusedError(
            f"evaluate_every_steps chooses by one half of evaluation_prompts and reports on the "
            f"other: 4 are wanted at least, there are {len(held_out)}"
        )
    return held_out[::2], held_out[1::2]
