"""What a policy in training says of conversations it does not learn: their loss, and its answers.

Neither draws a random number nor leaves a trace in the model, so a run with them and one without
end with the same weights.

Legend: S learnt tokens of a row, C width of a hidden state, V vocabulary.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from alignment.intervals import bootstrap_ratio
from alignment.ml.best_step import BestStep
from alignment.ml.configs import SftConfig
from alignment.ml.configs.preference import PreferenceSettings
from alignment.ml.conversations import Lesson, taught_places
from alignment.ml.scoring import Scorer
from alignment.ml.shared_prefix import Group, Row, hidden_states, pack
from alignment.ml.shared_prefix.support import base_model
from modelhub.ml.adapter import ModelInput, virtual_cache
from modelhub.ml.chat import answer_decode, end_of_turn_id, reward_token_id, stop_ids
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.parallel import Processes
from modelhub.ml.rundir import RunDir

_CHUNK_TOKENS = 512  # learnt tokens whose logits exist at once


@dataclass(frozen=True)
class Heard:
    """One conversation as the policy hears it: sums over its learnt tokens."""

    loss_sum: float  # nats
    right: int  # tokens that were the likeliest
    tokens: int


@torch.no_grad()
def conversations_hear(model: Any, lessons: Sequence[Lesson], budget_tokens: int) -> list[Heard]:
    """The loss of every conversation of the lessons, in their order."""
    training = model.training
    model.eval()
    heard: dict[int, list[Heard]] = {}
    for row in pack([lesson.group for lesson in lessons], budget_tokens):
        own = [lessons[index] for index in row.indices]
        loss_S, right_S = _row_hear(model, row, own)
        parts = [sum(taught) for lesson in own for taught in lesson.taught]
        found = iter(zip(loss_S.split(parts), right_S.split(parts), parts, strict=True))
        for index, lesson in zip(row.indices, own, strict=True):
            heard[index] = [
                Heard(float(loss.sum()), int(right.sum()), tokens)
                for loss, right, tokens in (next(found) for _ in lesson.taught)
            ]
    model.train(training)
    return [one for index in range(len(lessons)) for one in heard[index]]


def _row_hear(model: Any, row: Row, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    hidden_TC = hidden_states(model, row)
    head = base_model(model).get_output_embeddings()
    taught = torch.tensor(taught_places(lessons))
    source_S, target_S = (place[taught].to(hidden_TC.device) for place in row.answer_places())
    losses, rights = [], []
    for source, target in zip(
        source_S.split(_CHUNK_TOKENS), target_S.split(_CHUNK_TOKENS), strict=True
    ):
        logits_SV = head(hidden_TC[source]).float()
        chosen_S = logits_SV.gather(-1, target[:, None])[:, 0]
        losses.append((logits_SV.logsumexp(-1) - chosen_S).double().cpu())
        rights.append((chosen_S == logits_SV.amax(-1)).cpu())
    return torch.cat(losses), torch.cat(rights)


def heard_describe(heard: Sequence[Heard]) -> dict[str, float]:
    """Mean loss (nats per learnt token) and share of tokens that were the likeliest."""
    tokens = sum(one.tokens for one in heard)
    return {
        "loss": sum(one.loss_sum for one in heard) / tokens,
        "token_accuracy": sum(one.right for one in heard) / tokens,
    }


def heard_compare(
    before: Sequence[Heard], after: Sequence[Heard], *, samples: int, seed: int
) -> dict[str, Any]:
    """Before and after training on the same conversations.

    `difference`: mean loss after less before, nats per token, with its 95 % bootstrap interval over
    conversations, each compared with itself.
    """
    pairs = list(zip(before, after, strict=True))
    parts = [(new.loss_sum - old.loss_sum, float(old.tokens)) for old, new in pairs]
    return {
        "conversations": len(pairs),
        "loss_before": heard_describe(before)["loss"],
        "loss_after": heard_describe(after)["loss"],
        "token_accuracy_before": heard_describe(before)["token_accuracy"],
        "token_accuracy_after": heard_describe(after)["token_accuracy"],
        "difference": asdict(bootstrap_ratio(parts, samples=samples, seed=seed)),
    }


@torch.no_grad()
def answer_greedy(
    model: Any, prompt_T: Sequence[int], max_tokens: int, stop_ids: Collection[int]
) -> list[int]:
    """The likeliest token again and again, behind a prompt, the one that ends the answer left out.

    An adapter's own tokens are in front.
    """
    training = model.training
    model.eval()
    base = base_model(model)
    cache = virtual_cache(model) or DynamicCache()
    tokens: list[int] = []
    fed = torch.tensor([list(prompt_T)], device=base.device)
    while len(tokens) < max_tokens:
        logits_V = base(
            input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits[0, -1]
        token = int(logits_V.argmax())
        if token in stop_ids:
            break
        tokens.append(token)
        fed = fed.new_tensor([[token]])
    model.train(training)
    return tokens


def precision(config: SftConfig | PreferenceSettings) -> Any:
    """The context in which the model's products have the asked dtype."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16")


class RewardChoice:
    """Which step is published: the one whose answers to prompts it does not learn a reward model
    likes best (Ouyang et al. 2022, arXiv:2203.02155, appendix C.1)."""

    def __init__(
        self,
        best: BestStep,
        reward: ModelInput,
        prompts: Sequence[Sequence[int]],
        tokenizer: Any,
        config: SftConfig,
        processes: Processes,
    ) -> None:
        """reward: a model that reads the policy's tokens. prompts: in tokens."""
        self.best = best
        self._prompts, self._tokenizer = prompts, tokenizer
        self._config, self._processes = config, processes
        self._scorer = Scorer(reward, role="reward", dtype=config.dtype)
        reading = reward_token_id(tokenizer_load(reward.whole))
        self._reading = [] if reading is None else [reading]

    def look(self, run: RunDir, step: int, model: Any) -> None:
        """Score the greedy answers of the policy behind a step, counted from 1."""
        groups, cut_off = [], 0
        for prompt_T in self._prompts:
            with precision(self._config):
                answer_T = self._processes.forward(
                    answer_greedy,
                    model,
                    prompt_T,
                    self._config.choice_tokens,
                    stop_ids(self._tokenizer),
                )
            ended = len(answer_T) < self._config.choice_tokens
            cut_off += not ended
            ending = [end_of_turn_id(self._tokenizer)] if ended else []
            groups.append(Group(list(prompt_T), [[*answer_T, *ending, *self._reading]]))
        scores = []
        with torch.inference_mode():
            for row in pack(groups, self._config.budget_tokens):
                scores += [score for own in self._scorer.scores(row) for score in own]
        # The mean of the processes', which may differ in their last digits: all choose the same.
        own = math.fsum(scores) / len(scores)
        told = self._processes.sum({"score": own, "readers": 1.0})
        score = told["score"] / told["readers"]
        self.best.see(step, score)
        unfinished = cut_off / len(self._prompts)
        run.metric(step, {"validation_reward": score, "validation_unfinished_share": unfinished})
        if self._processes.rank == 0:
            print(f"step {step}: validation reward {score:.4g}", flush=True)

    def end(self, run: RunDir, step: int, model: Any) -> None:
        """Score the last step too, and give the policy the best one's weights."""
        if not self.best.scores or self.best.scores[-1][0] != step:
            self.look(run, step, model)
        self.best.take()


@dataclass
class Watch:
    """What is looked at beside training, and what was seen so far."""

    validation: Sequence[Lesson]
    held_out: Sequence[Lesson]
    prompts: Sequence[Sequence[int]]  # of the greedy answers
    tokenizer: Any
    processes: Processes
    before: dict[str, list[Heard]] = field(default_factory=dict)  # by split
    samples: list[dict[str, Any]] = field(default_factory=list)  # {"step", "prompt", "answer"}
    choice: RewardChoice | None = None  # of the step that is published

    def begin(self, run: RunDir, config: SftConfig, model: Any) -> None:
        """The policy before it has learnt anything."""
        for split, lessons in (("validation", self.validation), ("held_out", self.held_out)):
            if lessons:
                self.before[split] = self._hear(config, model, lessons)
        if self.validation:
            self._metric(run, 0, self.before["validation"])
        if config.sample_every_steps:
            self.sample(0, config, model)

    def look(self, run: RunDir, step: int, steps: int, config: SftConfig, model: Any) -> None:
        """After a step: what is due then. Steps count from 1."""
        every = config.evaluate_every_steps
        if self.validation and every and step % every == 0 and step < steps:
            self._metric(run, step, self._hear(config, model, self.validation))
        every = config.sample_every_steps
        if every and (step % every == 0 or step == steps):
            self.sample(step, config, model)
        every = config.evaluate_every_steps
        if self.choice and step % every == 0 and step < steps:
            self.choice.look(run, step, model)

    def end(self, run: RunDir, steps: int, config: SftConfig, model: Any) -> dict[str, Any]:
        """Each split before and after training, by the weights that are published."""
        found: dict[str, Any] = {}
        last: list[Heard] = []
        if self.validation:
            # The curve ends with the last step, whichever step is published.
            last = self._hear(config, model, self.validation)
            self._metric(run, steps, last)
        if self.choice:
            self.choice.end(run, steps, model)
            found |= self.choice.best.described()
        for split, lessons in (("validation", self.validation), ("held_out", self.held_out)):
            if not lessons:
                continue
            is_heard = split == "validation" and not self.choice
            after = last if is_heard else self._hear(config, model, lessons)
            found[split] = heard_compare(
                self.before[split], after, samples=config.bootstrap_samples, seed=config.seed
            )
        return found

    def sample(self, step: int, config: SftConfig, model: Any) -> None:
        """Answer the fixed prompts, greedily, into the log."""
        for prompt_T in self.prompts:
            with precision(config):
                answer_T = self.processes.forward(
                    answer_greedy,
                    model,
                    prompt_T,
                    config.sample_tokens,
                    stop_ids(self.tokenizer),
                )
            prompt, answer = (answer_decode(self.tokenizer, one) for one in (prompt_T, answer_T))
            self.samples.append({"step": step, "prompt": prompt, "answer": answer})
            if self.processes.rank == 0:
                print(f"step {step}, behind …{prompt[-60:]!r}: {answer!r}", flush=True)

    def _hear(self, config: SftConfig, model: Any, lessons: Sequence[Lesson]) -> list[Heard]:
        """Every process hears them all: what it would save is little beside training."""
        with precision(config):
            return self.processes.forward(conversations_hear, model, lessons, config.budget_tokens)

    def _metric(self, run: RunDir, step: int, heard: Sequence[Heard]) -> None:
        described = heard_describe(heard)
        run.metric(step, {f"validation_{name}": value for name, value in described.items()})
        if self.processes.rank == 0:
            print(f"step {step}: validation loss {described['loss']:.4f}", flush=True)

    def state(self) -> dict[str, Any]:
        """As JSON values, for a checkpoint."""
        before = {split: [list(astuple(one)) for one in own] for split, own in self.before.items()}
        choice = {"choice": self.choice.best.state()} if self.choice else {}
        return {"before": before, "samples": self.samples, **choice}

    def restore(self, state: dict[str, Any]) -> None:
        self.before = {
            split: [Heard(*one) for one in own] for split, own in state["before"].items()
        }
        self.samples = state["samples"]
        if self.choice:
            self.choice.best.restore(state["choice"])
