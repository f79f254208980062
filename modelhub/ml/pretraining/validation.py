"""What is looked at beside training: the loss of each source's kept blocks, and texts.

Neither draws from the run's generators nor leaves a trace in the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modelhub.ml.parallel import Processes
from modelhub.ml.pretraining.architectures import (
    Batch,
    Special,
    batch_make,
    block_losses,
    logits_losses,
)
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.data import Sample, TokenSource, blocks_read, sample_generator
from modelhub.ml.rundir import RunDir

_PROMPT_TOKENS = 16  # of a validation block, where no prompts were given
_MOST_NATS = 50.0  # per token: exp() of more is no perplexity to print


@dataclass
class Watch:
    """Losses by source over the run, and what the model wrote."""

    sources: Sequence[TokenSource]
    special: Special
    tokenizer: Any
    processes: Processes
    losses: list[dict[str, Any]] = field(default_factory=list)  # {"step", source: nats per token}
    samples: list[dict[str, Any]] = field(default_factory=list)  # {"step", "prompt", "text"}

    def look(self, run: RunDir, step: int, config: PretrainConfig, model: Any) -> None:
        """Behind step 1 … steps, and before the first as step 0: what is due then."""
        last = step == config.steps
        if (step % config.evaluate_every_steps == 0 or last) and config.validation_blocks:
            self.losses.append({"step": step, **self._losses(config, model)})
            run.metric(step, {f"validation_{k}": v for k, v in self._named(self.losses[-1])})
            if self.processes.rank == 0:
                told = ", ".join(
                    f"{name} {perplexity(loss):.2f}" for name, loss in self._named(self.losses[-1])
                )
                print(f"step {step}: validation perplexity {told}", flush=True)
        every = config.sample_every_steps
        if every and config.objective != "masked" and (step % every == 0 or last):
            self._sample(step, config, model)

    def _named(self, losses: dict[str, Any]) -> list[tuple[str, float]]:
        return [(name, loss) for name, loss in losses.items() if name != "step"]

    @torch.no_grad()
    def _losses(self, config: PretrainConfig, model: Any) -> dict[str, float]:
        """Nats per learnt token of each source's validation blocks, the same at every look."""
        training = model.training
        model.eval()
        found = {}
        for place, source in enumerate(self.sources):
            first = source.train_blocks
            kept = [
                Sample(number, place, 0, number)
                for number in range(first, first + source.validation_blocks)
            ]
            if not kept:
                continue
            size = config.blocks_per_pass
            passes = [kept[at : at + size] for at in range(0, len(kept), size)]
            sums = {"loss": 0.0, "learnt": 0.0}
            for own, weight in self.processes.share(passes, cost=len):
                blocks = blocks_read(self.sources, own, self.special.vocabulary)
                generators = [sample_generator(config.seed, one.number) for one in own]
                batch = batch_make(blocks, generators, config, self.special)
                batch = batch.to(self.processes.device)
                loss_B = self._block_losses(config, model, batch)
                sums["loss"] += weight * float(loss_B.sum())
                sums["learnt"] += weight * batch.learnt
            sums = self.processes.sum(sums)
            found[source.name] = sums["loss"] / max(1.0, sums["learnt"])
        model.train(training)
        return found

    def _block_losses(self, config: PretrainConfig, model: Any, batch: Batch) -> Tensor:
        """Nats of each block's learnt tokens, (B,)."""
        targets_BR = batch.targets_BR
        if self.processes.pipeline is not None:
            return self.processes.pipeline.look(
                batch.inputs,
                lambda logits_BRV: logits_losses(logits_BRV, targets_BR),
                targets_BR.shape[:1],
            )
        with precision(config):
            return self.processes.forward(block_losses, model, batch.inputs, targets_BR)[0]

    def _sample(self, step: int, config: PretrainConfig, model: Any) -> None:
        """Greedy texts behind fixed beginnings, into the log and the result."""
        for prompt_T in self._prompts(config):
            with precision(config):
                if config.objective == "span":
                    writer, given = span_greedy, [*prompt_T, self.special.sentinel_ids[0]]
                else:
                    writer, given = text_greedy, prompt_T
                text_T = self.processes.forward(
                    writer, model, given, config.sample_tokens, self.special
                ).tolist()
            prompt, text = self.tokenizer.decode(prompt_T), self.tokenizer.decode(text_T)
            self.samples.append({"step": step, "prompt": prompt, "text": text})
            if self.processes.rank == 0:
                print(f"step {step}, behind {prompt[-60:]!r}: {text!r}", flush=True)

    def _prompts(self, config: PretrainConfig) -> list[list[int]]:
        if config.sample_prompts:
            return [
                self.tokenizer.encode(text, add_special_tokens=False) or [self.special.end_id]
                for text in config.sample_prompts
            ]
        source = self.sources[0]
        block = source.train_blocks if source.validation_blocks else 0
        return [source.read(block)[0][:_PROMPT_TOKENS].tolist()]

    def by_source(self) -> list[dict[str, Any]]:
        """Each source's perplexity before the first step and behind the last."""
        if not self.losses:
            return []
        first, last = self.losses[0], self.losses[-1]
        return [
            {
                "source": source.name,
                "is_replay": source.is_replay,
                "perplexity_before": perplexity(first[source.name]),
                "perplexity_after": perplexity(last[source.name]),
                "loss_before": first[source.name],
                "loss_after": last[source.name],
            }
            for source in self.sources
            if source.name in first
        ]

    def state(self) -> dict[str, Any]:
        """As JSON values, for a checkpoint."""
        return {"losses": self.losses, "samples": self.samples}

    def restore(self, state: dict[str, Any]) -> None:
        self.losses, self.samples = state["losses"], state["samples"]


@torch.no_grad()
def text_greedy(model: Any, prompt_T: Sequence[int], tokens: int, special: Special) -> Tensor:
    """The likeliest token again and again behind a prompt: ids, shape (written,)."""
    training = model.training
    model.eval()
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    written = torch.tensor([list(prompt_T)], device=model.device)
    for _ in range(tokens):
        logits_V = model(input_ids=written[:, -context:]).logits[0, -1]
        written = torch.cat([written, logits_V.argmax().view(1, 1)], dim=1)
    model.train(training)
    return _before(written[0, len(prompt_T) :], (special.end_id,))


@torch.no_grad()
def span_greedy(model: Any, source_T: Sequence[int], tokens: int, special: Special) -> Tensor:
    """What a model of spans puts where the source ends with its first sentinel: ids, (written,)."""
    training = model.training
    model.eval()
    source = torch.tensor([[*source_T, special.end_id]], device=model.device)
    written = torch.tensor([[special.pad_id, special.sentinel_ids[0]]], device=model.device)
    for _ in range(tokens):
        logits_V = model(input_ids=source, decoder_input_ids=written).logits[0, -1]
        written = torch.cat([written, logits_V.argmax().view(1, 1)], dim=1)
    model.train(training)
    return _before(written[0, 2:], (special.end_id, *special.sentinel_ids))


def _before(text_T: Tensor, end_ids: Sequence[int]) -> Tensor:
    """A text up to where it ends: every rank of a sharded model makes as many passes."""
    ended = torch.isin(text_T, torch.tensor(end_ids, device=text_T.device)).nonzero()
    return text_T[: int(ended[0])] if len(ended) else text_T


def perplexity(loss: float) -> float:
    """exp of nats per token."""
    return math.exp(min(loss, _MOST_NATS))


def precision(config: PretrainConfig) -> Any:
    """The context in which the model's products have the asked dtype."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16")
