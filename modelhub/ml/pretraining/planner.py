"""What a run would take: memory of each device, time, tokens to a parameter. Before one launches.

Standard library only: a page of the hub shows it while the form is filled in. Memory is of this
project's own loop: float32 weights, gradients and moments, products in float32 or bfloat16.
"""

import math
from dataclasses import dataclass

from modelhub.ml.configs import RefusedError
from modelhub.ml.pretraining.presets import SIZES, Size, Weights, token_flops, weights_count

GIB = 2**30
CHINCHILLA_TOKENS = 20.0  # to a parameter; Hoffmann et al. 2022 (arXiv:2203.15556), table 3
STAGES = (0, 1, 2, 3)  # of ZeRO: nothing sharded; moments; and gradients; and weights
SLACK = 1.1  # fragments, buffers of communication, the library itself


class PlanError(RefusedError):
    """A plan was refused; the message names the figure."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is planned."""

    architecture: str
    size: str
    tokens: float  # of training, in all
    vocabulary: int = 32_000
    block_tokens: int = 2048
    blocks_per_pass: int = 8  # on one device at once
    devices: int = 1
    device_memory_gib: float = 80.0
    device_flops_per_s: float = 400e12  # of products in the dtype; measured in a run as its matmul
    mfu: float = 0.4  # share of it that training reaches
    tensor_parallel: int = 1
    pipeline_parallel: int = 1  # devices with a stretch of the layers each; all of them
    checkpointing: bool = False  # activations computed again in backward
    dtype: str = "bfloat16"
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            if not ok:
                raise PlanError(f"{field}: wanted {wanted}, got {getattr(self, field)!r}")

        check(self.architecture in SIZES, "architecture", ", ".join(SIZES))
        sizes = SIZES[self.architecture]
        check(self.size in sizes, "size", ", ".join(sizes))
        for field in ("tokens", "device_memory_gib", "device_flops_per_s"):
            value = getattr(self, field)
            check(math.isfinite(value) and value > 0, field, "a number above 0")
        for field in ("vocabulary", "block_tokens", "blocks_per_pass", "devices"):
            check(0 < getattr(self, field) <= 10**9, field, "1 or more")
        check(0 < self.mfu <= 1, "mfu", "more than 0, at most 1")
        check(
            self.tensor_parallel >= 1 and self.devices % self.tensor_parallel == 0,
            "tensor_parallel",
            f"a divisor of {self.devices} devices",
        )
        stages = self.pipeline_parallel
        check(
            stages == 1 or (stages == self.devices and self.tensor_parallel == 1),
            "pipeline_parallel",
            f"1, or all {self.devices} devices and no tensor_parallel",
        )
        check(
            1 <= stages <= sizes[self.size].layers
            and (stages == 1 or self.architecture == "llama"),
            "pipeline_parallel",
            f"1, or of a llama at most {sizes[self.size].layers}",
        )
        check(self.dtype in ("float32", "bfloat16"), "dtype", "float32 or bfloat16")
        check(self.optimizer in ("adamw", "muon"), "optimizer", "adamw or muon")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device."""

    stage: int  # of ZeRO
    checkpointing: bool
    weights: float
    gradients: float
    optimizer: float
    activations: float
    launched_as: str  # strategy of the hub that is this, and its settings; empty: none is

    @property
    def total(self) -> float:
        return SLACK * (self.weights + self.gradients + self.optimizer + self.activations)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer."""

    parameters: int
    parameters_active: int  # that one token goes through
    flops_per_token: float
    flops: float
    seconds: float
    tokens_per_s: float
    tokens_per_parameter: float
    chinchilla_tokens: float  # that the size would want
    loss_estimate: float  # nats per token, of English web text
    loss_uniform: float  # of a guess among all tokens alike
    memory: tuple[Memory, ...]  # every stage, without and with checkpointing
    fits: tuple[Memory, ...]  # those within a device's memory

    @property
    def loss_is_told(self) -> bool:
        """Whether the law reaches so few tokens: a model that learnt nothing does no worse."""
        return self.loss_estimate < self.loss_uniform

    @property
    def chinchilla_share(self) -> float:
        return self.tokens_per_parameter / CHINCHILLA_TOKENS


def plan(ask: Ask) -> Plan:
    """Everything about a run that can be told before it. Raises PlanError through `Ask`."""
    size = SIZES[ask.architecture][ask.size]
    weights = weights_count(
        ask.architecture, size, vocabulary=ask.vocabulary, context=ask.block_tokens
    )
    per_token = token_flops(
        ask.architecture,
        size,
        vocabulary=ask.vocabulary,
        context=ask.block_tokens,
        block_tokens=ask.block_tokens,
    )
    tokens_per_s = ask.devices * ask.device_flops_per_s * ask.mfu / per_token
    memory = tuple(
        memory_estimate(ask, size, weights, stage=stage, checkpointing=checkpointing)
        for checkpointing in (False, True)
        for stage in STAGES
    )
    return Plan(
        parameters=weights.total,
        parameters_active=weights.total - weights.body + weights.body_active,
        flops_per_token=per_token,
        flops=per_token * ask.tokens,
        seconds=ask.tokens / tokens_per_s,
        tokens_per_s=tokens_per_s,
        tokens_per_parameter=chinchilla_ratio(ask.tokens, weights.total),
        chinchilla_tokens=CHINCHILLA_TOKENS * weights.total,
        loss_estimate=chinchilla_loss(weights.total, ask.tokens),
        loss_uniform=math.log(ask.vocabulary),
        memory=memory,
        fits=tuple(one for one in memory if one.total <= ask.device_memory_gib * GIB),
    )


def memory_estimate(
    ask: Ask, size: Size, parameters: Weights, *, stage: int, checkpointing: bool
) -> Memory:
    """Bytes on one device.

    ZeRO shares over the devices that read different blocks: the moments from stage 1, gradients
    from 2, weights from 3 (Rajbhandari et al. 2019, arXiv:1910.02054, section 5). Of a pipeline the
    fullest stage is told: the first keeps the activations of as many passes as there are stages, of
    its own layers, so as many as one pass of all.
    """
    readers = ask.devices // (ask.tensor_parallel * ask.pipeline_parallel)
    own = parameters.total / ask.tensor_parallel
    if ask.pipeline_parallel > 1:
        ends = max(parameters.embedding, parameters.head)
        own = parameters.body / ask.pipeline_parallel + ends
    moments = 8.0 if ask.optimizer == "adamw" else 4.0
    cast = 2.0 * own if ask.dtype == "bfloat16" else 0.0  # products' copies of the weights
    if stage == 3:
        cast /= max(1, size.layers)  # gathered layer by layer
    return Memory(
        stage=stage,
        checkpointing=checkpointing,
        weights=4.0 * own / (readers if stage >= 3 else 1) + cast,
        gradients=4.0 * own / (readers if stage >= 2 else 1),
        optimizer=moments * own / (readers if stage >= 1 else 1),
        activations=activations_estimate(ask, size, checkpointing=checkpointing),
        launched_as=launch_told(ask, stage) if readers > 1 or stage == 0 else "",
    )


def launch_told(ask: Ask, stage: int) -> str:
    """The strategy and the settings of a run that shares so much; empty where none does."""
    readers = ask.devices // (ask.tensor_parallel * ask.pipeline_parallel)
    if stage < 3 and ask.tensor_parallel > 1 and readers > 1:
        return ""  # groups that share matrices are crossed with fsdp2 alone
    if stage in (1, 2) and ask.optimizer != "adamw":
        return ""
    settings = {
        "zero_stage": stage if stage in (1, 2) else None,
        "tensor_parallel": ask.tensor_parallel if ask.tensor_parallel > 1 else None,
        "pipeline_parallel": ask.pipeline_parallel if ask.pipeline_parallel > 1 else None,
    }
    told = [f"{name} {value}" for name, value in settings.items() if value is not None]
    return ", ".join(["fsdp2" if stage == 3 else "ddp", *told])


def activations_estimate(ask: Ask, size: Size, *, checkpointing: bool) -> float:
    """Bytes that one pass keeps for its backward.

    A layer of s tokens, width h and inner width i keeps about s · (18 h + 4 i) bytes in 16 bits
    where attention is computed in blocks and its matrix never kept: Korthikanti et al. 2022
    (arXiv:2205.05198), section 4.1, is 34 s h with i = 4 h. In float32 it is twice that. With
    checkpointing a layer keeps its input, and one layer at a time the rest. The logits come on top,
    once as computed and twice in float32.
    """
    tokens = ask.block_tokens * ask.blocks_per_pass
    width = 2.0 if ask.dtype == "bfloat16" else 4.0
    inner = size.inner * (
        3 * max(1, size.experts_active) / 2 if size.kv_heads or size.experts else 1
    )
    layer = tokens * (9.0 * size.hidden + 2.0 * inner) * width / ask.tensor_parallel
    layers = size.layers * (2 if ask.architecture == "t5" else 1)
    kept = layers * tokens * size.hidden * width + layer if checkpointing else layers * layer
    logits = tokens * ask.vocabulary * (width + 8.0)
    return kept + logits


def chinchilla_ratio(tokens: float, parameters: float) -> float:
    """Tokens to a parameter; about 20 make the most of a budget of operations."""
    return tokens / parameters if parameters else 0.0


def chinchilla_loss(parameters: float, tokens: float) -> float:
    """Nats per token that Hoffmann et al. 2022 (arXiv:2203.15556, appendix D.3) would expect.

    Of their text and tokenizer: for comparing plans, not for foretelling a run's loss.
    """
    return 1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28
