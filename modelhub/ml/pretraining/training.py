"""The loop: steps over blocks, and what keeps a long run from being lost.

    loss of a step = Σ over its blocks of −log p(learnt tokens) / learnt tokens of the whole step

Everything that decides what happens next is in the checkpoint or a function of the step: the blocks
(data.py), what is hidden in them, the rate, the skips. So a run that was killed goes on to the same
losses, bit for bit on the CPU, and on another number of processes to the same but for the order of
a sum's terms.

Legend: B blocks.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from modelhub.ml.checkpoint import training_state_load, training_state_save
from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import Diverged
from modelhub.ml.mixture import Mixture
from modelhub.ml.optimizers import mesh_optimizer_make
from modelhub.ml.parallel import Processes, objects_gather, replicas_check
from modelhub.ml.pretraining.architectures import (
    Special,
    batch_make,
    block_losses,
    logits_losses,
)
from modelhub.ml.pretraining.configs import SPIKES_NAME, PretrainConfig
from modelhub.ml.pretraining.data import (
    Sample,
    Skip,
    TokenSource,
    blocks_read,
    sample_generator,
    step_samples,
)
from modelhub.ml.pretraining.schedules import learning_rate
from modelhub.ml.pretraining.spikes import (
    PATIENCE_STEPS,
    WINDOW_STEPS,
    Seen,
    Spike,
    seen_once,
    spike_may_begin,
    spike_reason,
    suspects,
)
from modelhub.ml.pretraining.validation import Watch, precision
from modelhub.ml.pretraining.watchdog import Watchdog
from modelhub.ml.rundir import NotFinite, RunDir
from modelhub.ml.zero import ZeroOptimizer

T = TypeVar("T")

_COUNTED_SOURCES = 16  # have a curve of their tokens: those with most, and the result has all
_WARM_STEPS = 2  # of an attempt, whose time is not the usual one: memory, compilation


@dataclass
class Progress:
    """What a run has seen so far; all of it goes into the checkpoint."""

    step: int = 0  # steps taken
    losses: list[float] = field(default_factory=list)  # nats a token, of the latest steps
    seen: list[Seen] = field(default_factory=list)  # blocks of the latest steps
    skips: list[Skip] = field(default_factory=list)
    spikes: list[Spike] = field(default_factory=list)
    tokens: int = 0
    source_tokens: list[int] = field(default_factory=list)  # by source
    timed_tokens: int = 0  # of the steps whose time is counted
    timed_s: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)  # a hundred points at most

    def state(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "seen": [astuple(one) for one in self.seen],
            "skips": [astuple(one) for one in self.skips],
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Progress":
        found = cls(**state)
        found.seen = [Seen(*one) for one in state["seen"]]
        found.skips = [Skip(*one) for one in state["skips"]]
        found.spikes = [Spike(**one) for one in state["spikes"]]
        found.curve = [(step, loss) for step, loss in state["curve"]]
        return found


def optimizer_of(model: Any, config: PretrainConfig) -> torch.optim.Optimizer:
    """The configuration's optimizer: matrices decay, norms and biases do not."""
    embeddings = {id(model.get_input_embeddings().weight)}
    head = model.get_output_embeddings()
    if head is not None:
        embeddings.add(id(head.weight))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if weight.ndim >= 2]
    vectors = [weight for weight in weights if weight.ndim < 2]
    of_muon = []
    if config.optimizer == "muon":
        of_muon = [one for one in matrices if one.ndim == 2 and id(one) not in embeddings]
    taken = {id(one) for one in of_muon}
    return mesh_optimizer_make(
        of_muon,
        [
            {
                "params": [one for one in matrices if id(one) not in taken],
                "weight_decay": config.weight_decay,
            },
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.lr,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
    )


@dataclass(frozen=True)
class Stepped:
    """One step's gradients are in the weights; this is what they were made from."""

    loss: float  # nats per learnt token
    grad_norm: float  # before it was clipped
    blocks: list[tuple[int, float]]  # (place in the step, nats per learnt token), of this rank


def step_backward(
    model: Any,
    sources: Sequence[TokenSource],
    samples: Sequence[Sample],
    config: PretrainConfig,
    special: Special,
    processes: Processes,
    losses: Callable[..., tuple[Tensor, Tensor]] = block_losses,
    zero: ZeroOptimizer | None = None,
) -> Stepped:
    """Forward and backward over a step's blocks, its gradients summed over ranks and clipped.

    zero: the optimizer where it sums and clips them itself.
    """
    if processes.pipeline is not None:
        return staged_backward(model, sources, samples, config, special, processes)
    passes = _passes(samples, config.blocks_per_pass, processes.readers)
    own = []
    for part, weight in processes.share(passes, cost=len):
        blocks = blocks_read(sources, [sample for _, sample in part], special.vocabulary)
        generators = [sample_generator(config.seed, sample.number) for _, sample in part]
        batch = batch_make(blocks, generators, config, special)
        own.append((part, weight, batch))
    learnt = processes.sum({"learnt": sum(weight * batch.learnt for _, weight, batch in own)})
    whole = max(1.0, learnt["learnt"])
    loss_sum, by_block = 0.0, []
    for part, weight, batch in own:
        moved = batch.to(processes.device)
        with precision(config):
            loss_B, balance = processes.forward(losses, model, moved.inputs, moved.targets_BR)
        # The experts' loss is a mean over a pass: weighed by the pass's part of the step.
        loss = weight * (loss_B.sum() / whole + balance * len(part) / len(samples))
        loss.backward() if zero is None else zero.backward(loss)
        loss_sum += weight * float(loss_B.detach().sum())
        if weight:
            learnt_B = (batch.targets_BR >= 0).sum(-1).clamp(min=1)
            means = (loss_B.detach().cpu() / learnt_B).tolist()
            by_block += [(place, mean) for (place, _), mean in zip(part, means, strict=True)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    processes.gradients_sum(weights)
    if zero is None:
        norm = float(processes.gradients_clip(weights, config.max_grad_norm))
    else:
        norm = float(zero.norm())
    return Stepped(processes.sum({"loss": loss_sum})["loss"] / whole, norm, by_block)


def staged_backward(
    model: Any,
    sources: Sequence[TokenSource],
    samples: Sequence[Sample],
    config: PretrainConfig,
    special: Special,
    processes: Processes,
) -> Stepped:
    """As `step_backward`, through the stages of a pipeline: every rank reads all blocks."""
    assert processes.pipeline is not None  # noqa: S101 - the caller has seen that
    generators = [sample_generator(config.seed, sample.number) for sample in samples]
    blocks = blocks_read(sources, samples, special.vocabulary)
    batch = batch_make(blocks, generators, config, special)
    moved = batch.to(processes.device)
    whole = max(1.0, float(batch.learnt))
    seen: list[Tensor] = []

    def loss(logits_BRV: Tensor, targets_BR: Tensor) -> Tensor:
        loss_B = logits_losses(logits_BRV, targets_BR)
        seen.append(loss_B.detach())
        return loss_B.sum() / whole

    passes = stage_passes(len(samples), config.blocks_per_pass, processes.world)
    processes.pipeline.backward(moved.inputs, moved.targets_BR, loss, passes=passes)
    # torch asks once more before the first step, for the shapes.
    nats = torch.cat(seen)[-len(samples) :].tolist() if seen else [0.0] * len(samples)
    nats = processes.pipeline.told(nats)
    learnt_B = (batch.targets_BR >= 0).sum(-1).clamp(min=1).tolist()
    means = [one / learnt for one, learnt in zip(nats, learnt_B, strict=True)]
    norm = float(processes.gradients_clip(model.parameters(), config.max_grad_norm))
    return Stepped(sum(nats) / whole, norm, list(enumerate(means)))


def stage_passes(blocks: int, blocks_per_pass: int, stages: int) -> int:
    """The fewest equal passes of a step that are no larger than asked, and keep all stages busy."""
    least = max(min(stages, blocks), math.ceil(blocks / blocks_per_pass))
    return next(passes for passes in range(least, blocks + 1) if blocks % passes == 0)


def _passes(samples: Sequence[T], blocks_per_pass: int, readers: int) -> list[list[tuple[int, T]]]:
    """The step's blocks with their places, in passes small enough that every reader has one."""
    size = max(1, min(blocks_per_pass, math.ceil(len(samples) / readers)))
    placed = list(enumerate(samples))
    return [placed[at : at + size] for at in range(0, len(placed), size)]


def train(
    run: RunDir,
    config: PretrainConfig,
    model: Any,
    sources: Sequence[TokenSource],
    mixture: Mixture,
    special: Special,
    watch: Watch,
    processes: Processes,
    dog: Watchdog,
    *,
    flops_per_token: float,
    matmul_per_s: float,
) -> Progress:
    """Take every step, from the newest checkpoint on.

    Raises NotFinite for a loss or gradient that is no number, Diverged for a spike, once all
    rewinds are used up; RefusedError if the replicas have drifted apart.
    """
    optimizer: Any = optimizer_of(model, config)
    zero = None
    if config.zero_stage:
        passes = _passes(range(config.blocks_per_step), config.blocks_per_pass, processes.readers)
        optimizer = zero = ZeroOptimizer(
            model,
            optimizer,
            stage=config.zero_stage,
            passes=math.ceil(len(passes) / processes.readers),
            max_grad_norm=config.max_grad_norm,
            world=processes.world,
        )
    progress = Progress(source_tokens=[0] * len(sources))
    found = run.checkpoint_latest()

    def load(folder: Path) -> Progress:
        values = training_state_load(folder, model=model, optimizer=optimizer)
        watch.restore(values["watch"])
        return Progress.restored(values["progress"])

    def save() -> None:
        values = {"progress": progress.state(), "watch": watch.state()}
        run.checkpoint_publish(
            progress.step,
            lambda folder: training_state_save(
                folder, model=model, optimizer=optimizer, values=values
            ),
        )

    if found is not None:
        progress = load(found[1])
        print(f"going on after step {progress.step}", flush=True)
    elif config.continues:
        raise RefusedError(
            f"the run goes on from {config.continues}, and that checkpoint is not in its directory"
        )
    else:
        watch.look(run, 0, config, model)
        dog.beat()
        if config.spike_deviations and config.spike_rewinds:
            save()  # the first spike needs something to go back to
    losses = torch.compile(block_losses) if config.compile else block_losses
    begun = progress.step
    is_save_due = False
    dog.beat()
    run.progress(progress.step, config.steps, "steps")
    while progress.step < config.steps:
        started = time.monotonic()
        step = progress.step
        lr = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        samples = step_samples(mixture, step, config, progress.skips)
        stepped = step_backward(model, sources, samples, config, special, processes, losses, zero)
        lately(progress, step + 1, stepped, samples, sources)
        reason = spike_reason(progress.losses, deviations=config.spike_deviations)
        if not math.isfinite(stepped.grad_norm):
            reason = reason or f"the gradient's norm is {stepped.grad_norm}"
        if reason is not None:
            optimizer.zero_grad()
            progress = rewind(run, config, progress, reason, samples, sources, mixture, load)
            save()
            is_save_due = False
            dog.beat()
            continue
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.monotonic() - started
        tokens = len(samples) * config.block_tokens
        count(progress, samples, config, tokens=tokens, seconds=seconds, begun=begun)
        run.metric(
            progress.step,
            {
                "loss": stepped.loss,
                "grad_norm": stepped.grad_norm,
                "lr": lr,
                "tokens": float(progress.tokens),
                "tokens_per_s": tokens / seconds,
                "mfu": tokens / seconds * flops_per_token / (matmul_per_s * processes.world),
                **source_counts(progress, sources, mixture, config),
            },
        )
        every = config.replica_check_every_steps
        if every and progress.step % every == 0:
            replicas_check(model)
        dog.beat()
        watch.look(run, progress.step, config, model)
        dog.beat()
        run.progress(progress.step, config.steps, "steps")
        is_save_due |= progress.step % config.checkpoint_every_steps == 0
        # A step later where a spike may have begun: a rewind would come back into it.
        is_calm = not spike_may_begin(progress.losses, deviations=config.spike_deviations)
        if is_save_due and is_calm and progress.step < config.steps:
            save()
            is_save_due = False
            dog.beat()
    return progress


def lately(
    progress: Progress,
    step: int,
    stepped: Stepped,
    samples: Sequence[Sample],
    sources: Sequence[TokenSource],
) -> None:
    """Keep the step's loss, and its blocks' losses for as long as they may be suspects."""
    progress.losses = [*progress.losses, stepped.loss][-WINDOW_STEPS - PATIENCE_STEPS :]
    own = [
        Seen(step, samples[at].number, sources[samples[at].source].name, samples[at].block, loss)
        for at, loss in stepped.blocks
    ]
    by_rank = objects_gather([list(astuple(one)) for one in own])
    everyone = seen_once([[Seen(*one) for one in found] for found in by_rank])
    kept = [one for one in progress.seen if one.step > step - PATIENCE_STEPS]
    progress.seen = [*kept, *everyone]


def count(
    progress: Progress,
    samples: Sequence[Sample],
    config: PretrainConfig,
    *,
    tokens: int,
    seconds: float,
    begun: int,
) -> None:
    """A step has been taken: into the sums."""
    progress.step += 1
    progress.tokens += tokens
    for sample in samples:
        progress.source_tokens[sample.source] += config.block_tokens
    if progress.step > begun + _WARM_STEPS or config.steps <= _WARM_STEPS:
        progress.timed_tokens += tokens
        progress.timed_s += seconds
    if is_told(progress.step, config):
        progress.curve.append((progress.step, progress.losses[-1]))


def source_counts(
    progress: Progress, sources: Sequence[TokenSource], mixture: Mixture, config: PretrainConfig
) -> dict[str, float]:
    """Tokens read of each source so far, a hundred times in a run; empty between.

    Of many sources those that the run reads most of: each is a curve.
    """
    if not is_told(progress.step, config):
        return {}
    planned_M = mixture.counts(config.steps * config.blocks_per_step)
    most = sorted(range(len(sources)), key=lambda place: (-int(planned_M[place]), place))
    return {
        f"tokens_{sources[place].name}": float(progress.source_tokens[place])
        for place in most[:_COUNTED_SOURCES]
    }


def is_told(step: int, config: PretrainConfig) -> bool:
    """Whether a step is one of the hundred that curves by the run's length have, or the last."""
    return step % max(1, config.steps // 100) == 0 or step == config.steps


def rewind(
    run: RunDir,
    config: PretrainConfig,
    progress: Progress,
    reason: str,
    samples: Sequence[Sample],
    sources: Sequence[TokenSource],
    mixture: Mixture,
    load: Callable[[Path], Progress],
) -> Progress:
    """Go back to the newest checkpoint, and leave out all samples that were read since.

    The spike is told at once, in spikes.json. Raises Diverged, naming the blocks' documents, if
    there is nowhere to go back to or all rewinds are used up; NotFinite if what was found is no
    number.
    """
    step = progress.step + 1
    found = run.checkpoint_latest()
    by_name = {source.name: source for source in sources}
    blocks = [
        {
            "source": one.source,
            "block": one.block,
            "loss": one.loss if math.isfinite(one.loss) else None,
            "documents": by_name[one.source].documents(one.block)[:16],
        }
        for one in suspects(progress.seen, step=step)
    ]
    spikes = progress.spikes
    back = found[0] if found else step - 1
    # What is skipped is skipped in every checkpoint since: `rewind` is followed by one.
    first = step_samples(mixture, back, config, progress.skips)[0].number
    spike = Spike(step, reason, back, first, samples[-1].number, blocks)
    run.told(SPIKES_NAME, {"spikes": [asdict(one) for one in [*spikes, spike]]})
    if found is None or len(spikes) >= config.spike_rewinds:
        named = "; ".join(
            f"{one['source']}, block {one['block']}: {one['documents']}" for one in blocks
        )
        failure = NotFinite if "is nan" in reason or "is inf" in reason else Diverged
        raise failure(
            f"training diverged at step {step}: {reason}, after {len(spikes)} rewinds; "
            f"nothing is published. Blocks: {named}"
        )
    restored = load(found[1])
    restored.skips = [*restored.skips, Skip(back, (step - back) * config.blocks_per_step)]
    restored.spikes = [*spikes, spike]
    run.rewound(back)
    print(spike.told(), flush=True)
    return restored
