"""Settings of pretraining. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelhub.ml.configs import choices_check, one_of, require
from modelhub.ml.pretraining.presets import OBJECTIVES, SIZES

OPTIMIZERS = ("adamw", "muon")
SIZE_NAMES = tuple(dict.fromkeys(size for sizes in SIZES.values() for size in sizes))
SCHEDULES = ("cosine", "wsd")
SPIKES_NAME = "spikes.json"  # in the run's directory, as the spikes come


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Train a model on tokens, from random weights or, given `base`, from a version's. Reads
    `tokens`, `tokens_2`, … (a source each), `replay`, `replay_2`, … (general text beside a domain)
    and `tokenizer` or `base`; writes `model`."""

    PROGRAM: ClassVar[str] = "pretrain"
    # Published recipes, by the name that `preset` takes; settings beside it win.
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Radford et al. 2019's smallest model, with Brown et al. 2020's rates (arXiv:2005.14165).
        "gpt2-124m": {
            "architecture": "gpt2",
            "size": "124m",
            "block_tokens": 1024,
            "blocks_per_step": 512,
            "lr": 6e-4,
            "warmup_steps": 700,
            "dtype": "bfloat16",
            "sample_every_steps": 1000,
        },
        # Touvron et al. 2023 (arXiv:2302.13971), section 2.3 and table 2.
        "llama-7b": {
            "architecture": "llama",
            "size": "7b",
            "block_tokens": 2048,
            "blocks_per_step": 2048,
            "steps": 250_000,
            "lr": 3e-4,
            "warmup_steps": 2000,
            "dtype": "bfloat16",
            "sample_every_steps": 1000,
        },
        # BigScience 2022 (arXiv:2211.05100), table 3; their cosine goes on to 410e9 tokens.
        "bloom-560m": {
            "architecture": "bloom",
            "size": "560m",
            "block_tokens": 2048,
            "blocks_per_step": 256,
            "steps": 650_000,
            "lr": 3e-4,
            "lr_final_share": 1 / 30,
            "warmup_steps": 715,
            "dtype": "bfloat16",
            "sample_every_steps": 1000,
        },
        # Jiang et al. 2024 (arXiv:2401.04088), table 1. How it was trained is not published: the
        # rates are LLaMA's.
        "mixtral-8x7b": {
            "architecture": "mixtral",
            "size": "8x7b",
            "block_tokens": 4096,
            "context_tokens": 32_768,
            "blocks_per_step": 1024,
            "steps": 250_000,
            "lr": 3e-4,
            "warmup_steps": 2000,
            "dtype": "bfloat16",
            "sample_every_steps": 1000,
        },
        # Raffel et al. 2019 (arXiv:1910.10683), section 3.1. Theirs is AdaFactor, whose 0.01 is no
        # rate for AdamW.
        "t5-base": {
            "architecture": "t5",
            "size": "base",
            "block_tokens": 512,
            "blocks_per_step": 128,
            "steps": 2**19,
            "lr": 1e-4,
            "warmup_steps": 10_000,
            "dropout": 0.1,
            "masked_share": 0.15,
            "span_tokens": 3.0,
            "dtype": "bfloat16",
            "sample_every_steps": 1000,
        },
        # Devlin et al. 2018 (arXiv:1810.04805), appendix A.2, without the next sentence; all steps
        # at the full length, and a cosine where theirs is a line.
        "bert-base": {
            "architecture": "bert",
            "size": "base",
            "block_tokens": 512,
            "blocks_per_step": 256,
            "steps": 1_000_000,
            "lr": 1e-4,
            "lr_final_share": 0.0,
            "warmup_steps": 10_000,
            "weight_decay": 0.01,
            "beta2": 0.999,
            "dropout": 0.1,
            "dtype": "bfloat16",
        },
        # Peng et al. 2023 (arXiv:2305.13048), appendix; theirs decays exponentially.
        "rwkv-169m": {
            "architecture": "rwkv",
            "size": "169m",
            "block_tokens": 1024,
            "document_mask": False,
            "blocks_per_step": 128,
            "steps": 2_500_000,
            "lr": 6e-4,
            "lr_final_share": 1 / 60,
            "weight_decay": 0.0,
            "beta2": 0.99,
            "dtype": "bfloat16",
            "sample_every_steps": 1000,
        },
        # A novel on a laptop, in a quarter of an hour (docs/experiments.md).
        "novel": {
            "architecture": "gpt2",
            "size": "9m",
            "block_tokens": 256,
            "blocks_per_step": 8,
            "steps": 400,
            "optimizer": "muon",
            "lr": 1e-3,
            "warmup_steps": 40,
            "dtype": "auto",
            "sample_every_steps": 100,
        },
    }
    architecture: str = one_of(SIZES, "llama")
    # Of the architecture's presets; with a base, its own is taken.
    size: str = one_of(SIZE_NAMES, "9m")
    block_tokens: int = 256  # of one sample, and the model's context where it is new
    context_tokens: int = 0  # positions the new model has; 0: block_tokens
    # The new model's embedding is rounded up to a multiple: quicker products, and whole parts for
    # tensor parallelism.
    vocabulary_multiple: int = 64
    steps: int = 1000
    blocks_per_step: int = 16
    blocks_per_pass: int = 16  # of a step that are computed together; memory depends on it
    # A token sees its own document only. Off: the whole block, as GPT-3 was trained.
    document_mask: bool = True
    # Of the sources, in the order of their roles; none given: by their size, evened out by the
    # temperature.
    shares: tuple[float, ...] = ()
    temperature: float = 1.0
    epoch_caps: tuple[float, ...] = ()  # times each source is read at most; 0: no cap
    replay_share: float = 0.1  # of all `replay` sources together, if there are any
    # Other shares from a step on, by that step: {"500": [0.2, 0.8]}. Of a run that goes on from
    # another's checkpoint also {"shares", "first_sample", "planned_samples"}, counted in samples.
    later_shares: dict[str, Any] = field(default_factory=dict)
    planned_samples: int = 0  # of the run, as its first shares were capped for; 0: as many as now
    # Samples that are never read, by number: "80-91", as a spike's are told.
    skip_samples: tuple[str, ...] = ()
    continues: str = ""  # the run and step whose checkpoint it goes on from: uid@step
    mixture: str = ""  # the saved mixture that token sets, shares and caps are of: name@number
    # Muon moves the matrices between embedding and head; AdamW the rest.
    optimizer: str = one_of(OPTIMIZERS, "adamw")
    lr: float = 6e-4
    lr_final_share: float = 0.1
    schedule: str = one_of(SCHEDULES, "cosine")  # wsd: warm-up, stable, decay
    warmup_steps: int = 100
    decay_share: float = 0.2  # of the steps, at the end; of wsd
    weight_decay: float = 0.1  # of matrices
    beta1: float = 0.9
    beta2: float = 0.95
    max_grad_norm: float = 1.0
    dropout: float = 0.0
    # Of the products; weights are trained in float32.
    dtype: str = one_of(("float32", "bfloat16", "auto"), "float32")
    compile: bool = False
    gradient_checkpointing: bool = False
    masked_share: float = 0.15  # of tokens; of the masked and the span objective
    span_tokens: float = 3.0  # mean length of a corrupted span
    tensor_parallel: int = 1  # processes that share each layer's matrices
    expert_parallel: bool = False  # the same processes have an equal part of the experts each
    # Processes that have a stretch of the layers each; all of them, of a Llama. A step is at least
    # so many passes.
    pipeline_parallel: int = 1
    # Of ZeRO by DeepSpeed, with ddp: 1 shares the moments out, 2 gradients too, 3 weights too (as
    # fsdp2 does without DeepSpeed).
    zero_stage: int = one_of((0, 1, 2, 3), 0)
    validation_blocks: int = 16  # of each source, never trained on; at most a tenth of it
    evaluate_every_steps: int = 100
    sample_every_steps: int = 0  # texts written by the model (not BERT), into the log; 0: none
    sample_prompts: tuple[str, ...] = ()  # beginnings; none: the first of the validation blocks
    sample_tokens: int = 48
    checkpoint_every_steps: int = 100
    # A spike: the loss of two steps in a row more than so many deviations above the median; 0: none
    # is looked for.
    spike_deviations: float = 8.0
    spike_rewinds: int = 3  # times a run goes back and skips blocks before it stops
    replica_check_every_steps: int = 100  # 0: at the beginning and the end alone
    hang_timeout_s: float = 1800.0  # without a sign of life, then the process ends itself; 0: none
    seed: int = 0

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        # Before the choices are checked, which know the sizes of all architectures.
        sizes = SIZES.get(self.architecture, {})
        wanted = f"a size of {self.architecture}: {', '.join(sizes)}"
        check(not sizes or self.size in sizes, "size", wanted)
        choices_check(self)
        for name in (
            "steps",
            "blocks_per_step",
            "blocks_per_pass",
            "lr",
            "max_grad_norm",
            "sample_tokens",
            "checkpoint_every_steps",
            "tensor_parallel",
            "pipeline_parallel",
            "vocabulary_multiple",
            "evaluate_every_steps",
        ):
            check(getattr(self, name) > 0, name, "more than 0")
        for name in (
            "context_tokens",
            "warmup_steps",
            "weight_decay",
            "validation_blocks",
            "sample_every_steps",
            "spike_deviations",
            "spike_rewinds",
            "replica_check_every_steps",
            "hang_timeout_s",
        ):
            check(getattr(self, name) >= 0, name, "0 or more")
        for name in ("lr_final_share", "decay_share", "replay_share"):
            check(0 <= getattr(self, name) <= 1, name, "0 to 1")
        for name in ("beta1", "beta2", "dropout", "masked_share"):
            check(0 <= getattr(self, name) < 1, name, "0 to less than 1")
        check(self.block_tokens >= 8, "block_tokens", "8 or more")
        check(
            self.context_tokens in (0, self.block_tokens)
            or self.context_tokens > self.block_tokens,
            "context_tokens",
            "0, or block_tokens or more",
        )
        check(self.temperature >= 1, "temperature", "1 or more")
        check(self.span_tokens >= 1, "span_tokens", "1 or more")
        check(
            not self.expert_parallel or SIZES[self.architecture][self.size].experts > 0,
            "expert_parallel",
            "false for a model without experts",
        )
        check(
            not self.expert_parallel or self.tensor_parallel > 1,
            "expert_parallel",
            "false unless tensor_parallel says how many processes share the experts",
        )
        check(not (self.dropout and self.architecture == "rwkv"), "dropout", "0 for rwkv")
        if self.zero_stage:
            name = "zero_stage"
            check(self.optimizer == "adamw", name, "0 for muon, which needs whole matrices")
            check(
                self.tensor_parallel == self.pipeline_parallel == 1,
                name,
                "0 beside tensor_parallel and pipeline_parallel",
            )
            check(not self.spike_rewinds, name, "0 unless spike_rewinds is 0")
        if self.pipeline_parallel > 1:
            name = "pipeline_parallel"
            check(self.architecture == "llama", name, "1 for an architecture without stages")
            check(self.tensor_parallel == 1, name, "1 beside tensor_parallel")
            check(not self.compile, name, "1 where the model is compiled")
            check(not self.sample_every_steps, name, "1 where texts are sampled as it trains")
        check(
            not (self.document_mask and self.architecture == "rwkv"),
            "document_mask",
            "false for rwkv, whose state runs on through a block",
        )
        for step, asked in self.later_shares.items():
            check(
                step.isdecimal() and 0 < int(step) < self.steps and _is_blend(asked),
                "later_shares",
                'steps of the run, each with its shares: {"500": [0.2, 0.8]}',
            )
        check(self.planned_samples >= 0, "planned_samples", "0 or more")
        for text in self.skip_samples:
            first, _, last = text.partition("-")
            check(
                first.isdecimal() and last.isdecimal() and int(first) <= int(last),
                "skip_samples",
                'numbers of samples, each from the first to the last: "80-91"',
            )

    @property
    def skipped_ranges(self) -> list[tuple[int, int]]:
        """`skip_samples` as (first, last), in order, those that touch made one."""
        asked = sorted(tuple(map(int, text.split("-"))) for text in self.skip_samples)
        found: list[tuple[int, int]] = []
        for first, last in asked:
            if found and first <= found[-1][1] + 1:
                found[-1] = (found[-1][0], max(last, found[-1][1]))
            else:
                found.append((first, last))
        return found

    @property
    def objective(self) -> str:
        return OBJECTIVES[self.architecture]


def _is_blend(asked: Any) -> bool:
    """Whether it is a list of shares, or an object of them with where it begins and its plan."""
    if isinstance(asked, list):
        return True
    return (
        isinstance(asked, dict)
        and isinstance(asked.get("shares"), list)
        and asked.keys() <= {"shares", "first_sample", "planned_samples"}
        and all(
            type(asked[name]) is int and asked[name] > 0
            for name in asked.keys() & {"first_sample", "planned_samples"}
        )
    )


def sample_number(place: int, ranges: Sequence[tuple[int, int]]) -> int:
    """The number of the sample at a place among those that are read.

    ranges: (first, last) of those that are not, in order and apart.
    """
    for first, last in ranges:
        if place < first:
            break
        place += last - first + 1
    return place


def run_samples(config: PretrainConfig) -> int:
    """How many samples a run may read, those included that rewinds may skip."""
    # Whether spikes are looked for or not: a loss that is no number is always gone back from.
    reserve = config.spike_rewinds * (config.checkpoint_every_steps + 2)
    skipped = sum(last - first + 1 for first, last in config.skipped_ranges)
    return (config.steps + reserve) * config.blocks_per_step + skipped
