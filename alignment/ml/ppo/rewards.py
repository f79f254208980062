"""What scores an answer: a reward model, helpfulness and safety together, or a checker."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from alignment.ml.checkers import REFERENCES_NAME, checker_get, references_check, references_load
from alignment.ml.combined_reward import combined_score, safety_share, whiten
from alignment.ml.configs import OnlineSettings
from alignment.ml.scoring import Scorer
from alignment.ml.shared_prefix import Group, pack
from modelhub.ml.adapter import ModelInput, model_input
from modelhub.ml.chat import reward_token_id
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.parallel import ALONE, Processes, objects_gather
from modelhub.ml.rundir import RunDir


@dataclass(frozen=True)
class Answers:
    """The answers to some prompts, as the policy wrote them and as a reward model reads them."""

    prompt_ids: list[str]
    groups: list[Group]  # tokens as they were drawn
    judged: list[Group]  # the same, an answer that ended closed by the chat template's own token
    texts: list[list[str]]
    ended: list[list[bool]]

    @property
    def count(self) -> int:
        return sum(len(group.answers) for group in self.groups)

    @property
    def ended_B(self) -> Tensor:  # noqa: N802 - a tensor's shape is its suffix
        return torch.tensor([one for own in self.ended for one in own])


class Reward(Protocol):
    """Scores answers. `figures` are what the last scoring has to say beside."""

    figures: dict[str, float]

    def scores(self, answers: Answers) -> Tensor:
        """Each answer's score, (B,), float32 on the CPU, prompts and answers in their order."""
        ...


class ModelReward:
    """A reward model's score, read at an answer's last token or at a token behind it.

    Every process has the whole model and scores a share of the rows.
    """

    def __init__(
        self, given: Path | ModelInput, config: OnlineSettings, processes: Processes = ALONE
    ) -> None:
        self.figures: dict[str, float] = {}
        self._processes = processes
        given = given if isinstance(given, ModelInput) else ModelInput(given)
        reading = reward_token_id(tokenizer_load(given.whole))
        self._reading = [] if reading is None else [reading]
        self._scorer = Scorer(given, role="reward", dtype=config.dtype)
        self._scorer.model.requires_grad_(False)
        self._budget_tokens = config.budget_tokens

    @torch.inference_mode()
    def scores(self, answers: Answers) -> Tensor:
        groups = [
            Group(one.prompt_T, [[*answer, *self._reading] for answer in one.answers])
            for one in answers.judged
        ]
        tokens = sum(group.tokens for group in groups)
        rows = pack(groups, self._processes.budget_tokens(self._budget_tokens, tokens))
        scored: dict[int, list[float]] = {}
        for row, weight in self._processes.share(rows, cost=lambda row: row.tokens):
            if weight:  # a blank pass is for models that are sharded
                scored |= zip(row.indices, self._scorer.scores(row), strict=True)
        found = {place: own for rank in objects_gather(list(scored.items())) for place, own in rank}
        return torch.tensor([score for place in range(len(groups)) for score in found[place]])


class CombinedReward:
    """Llama 2's: an answer's safety where its prompt is risky or it looks unsafe, else its
    helpfulness."""

    def __init__(
        self, helpful: ModelReward, safe: ModelReward, risky: dict[str, bool], threshold: float
    ) -> None:
        self.figures: dict[str, float] = {}
        self._helpful, self._safe = helpful, safe
        self._risky, self._threshold = risky, threshold

    def scores(self, answers: Answers) -> Tensor:
        helpful_B, safe_B = self._helpful.scores(answers), self._safe.scores(answers)
        risky_B = torch.tensor(
            [
                self._risky.get(prompt_id, False)
                for prompt_id, group in zip(answers.prompt_ids, answers.groups, strict=True)
                for _ in group.answers
            ]
        )
        self.figures = {
            "objective/helpfulness": float(helpful_B.mean()),
            "objective/safety": float(safe_B.mean()),
            "objective/safety_share": safety_share(
                helpful_B, safe_B, risky_B, threshold=self._threshold
            ),
        }
        return combined_score(helpful_B, safe_B, risky_B, threshold=self._threshold)


class CheckerReward:
    """A checker's verdict on an answer's text."""

    def __init__(self, name: str, references: Path, prompt_ids: Sequence[str]) -> None:
        self.figures: dict[str, float] = {}
        self._check = checker_get(name)
        self._references = references_load(references, prompt_ids)
        references_check(self._references, self._check)

    def scores(self, answers: Answers) -> Tensor:
        return torch.tensor(
            [
                self._check(text, self._references[prompt_id].answer)
                for prompt_id, own in zip(answers.prompt_ids, answers.texts, strict=True)
                for text in own
            ]
        )


def reward_make(
    run: RunDir, config: OnlineSettings, prompt_ids: Sequence[str], processes: Processes = ALONE
) -> Reward:
    """The reward that the run's inputs and settings ask for. Raises RefusedError if they do not
    fit each other."""
    references = run.input("references") / REFERENCES_NAME if run.has_input("references") else None
    if config.checker:
        if run.has_input("safety"):
            raise RefusedError("a checker is not combined with a safety reward: take one of them")
        if references is None:
            raise RefusedError(f"checker {config.checker} needs the input references")
        return CheckerReward(config.checker, references, prompt_ids)
    if not run.has_input("reward"):
        raise RefusedError("nothing rewards the answers: give the input reward, or a checker")
    helpful = ModelReward(model_input(run, "reward"), config, processes)
    if not run.has_input("safety"):
        return helpful
    risky = {}
    if references is not None:
        found = references_load(references, prompt_ids)
        risky = {prompt_id: one.risky for prompt_id, one in found.items()}
    safe = ModelReward(model_input(run, "safety"), config, processes)
    return CombinedReward(helpful, safe, risky, config.safety_threshold)


def scores_shape(scores_B: Tensor, ended_B: Tensor, config: OnlineSettings) -> Tensor:
    """Scores as PPO sees them, (B,): whitened, scaled and shifted, clipped, less the penalty of
    answers that did not end."""
    shaped_B = whiten(scores_B) if config.whiten_scores else scores_B
    shaped_B = shaped_B * config.reward_scale + config.reward_shift
    if config.reward_clip:
        shaped_B = shaped_B.clamp(-config.reward_clip, config.reward_clip)
    return shaped_B - config.missing_eos_penalty * (~ended_B).float()
