"""Pretraining: a base model from tokens, or a base that goes on with a domain's.

By hand: `python -m modelhub.ml.pretraining RUN_DIR`. Inputs: `tokens`, `tokens_2`, … and
`tokenizer`; or `base` with `tokens` of the domain and `replay`, `replay_2`, … of what it knew.
Writes `model`, a version to fine-tune. docs/pretraining.md has the whole of it.
"""

from functools import partial
from typing import Any

import torch

from modelhub.ml.checkpoint import dtype_named, model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.parallel import processes_start
from modelhub.ml.pretraining.architectures import (
    Special,
    model_continue,
    model_make,
    special_tokens,
)
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.data import (
    TokenSource,
    accounts,
    mixture_make,
    roles_sorted,
    sample_next,
    source_make,
)
from modelhub.ml.pretraining.planner import chinchilla_ratio
from modelhub.ml.pretraining.presets import SIZES, Size, token_flops
from modelhub.ml.pretraining.shards import MappedShards, vocabulary_check
from modelhub.ml.pretraining.throughput import matmul_rate
from modelhub.ml.pretraining.training import Progress, train
from modelhub.ml.pretraining.validation import Watch, precision
from modelhub.ml.pretraining.watchdog import Watchdog, watchdog
from modelhub.ml.rundir import RunDir, program_run

_NAME_LETTERS = 40  # of a source, as its curve is called


def sources_open(
    run: RunDir, config: PretrainConfig, special: Special, dog: Watchdog
) -> list[TokenSource]:
    """The run's token sets, verified, the domain's first, named by their first document's source.

    special: of the run's tokenizer. Raises RefusedError if there is no set, or one was
    made with another tokenizer.
    """
    roles = list(run.input_roles())
    opened: list[TokenSource] = []
    for stem, is_replay in (("tokens", False), ("replay", True)):
        for role in roles_sorted(roles, stem):
            folder = run.input(role, dog.beat)
            vocabulary_check(folder, special.vocabulary, special.added)
            shards = MappedShards(folder)
            name = shards.block_documents(0, 1)[0].source[:_NAME_LETTERS]
            is_free = name and name not in {source.name for source in opened}
            opened.append(
                source_make(name if is_free else role, shards, config, is_replay=is_replay)
            )
    if not any(not source.is_replay for source in opened):
        raise RefusedError("the run was given no tokens")
    return opened


def model_size(model: Any, config: PretrainConfig) -> Size:
    """The preset's shape; of a continued model, what its own configuration says."""
    own = model.config
    heads = getattr(own, "num_attention_heads", None) or 1
    return Size(
        hidden=own.hidden_size,
        layers=own.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(own, "num_key_value_heads", None) or 0,
        intermediate=SIZES[config.architecture][config.size].intermediate
        if not hasattr(own, "intermediate_size")
        else own.intermediate_size or 0,
        experts=getattr(own, "num_local_experts", 0),
        experts_active=getattr(own, "num_experts_per_tok", 0),
    )


def main(run: RunDir) -> None:
    config = run.config(PretrainConfig)
    # From meeting the other ranks to what is published: each can be waited for in vain.
    with watchdog(config.hang_timeout_s) as dog:
        pretrain(run, config, dog)


def pretrain(run: RunDir, config: PretrainConfig, dog: Watchdog) -> None:
    processes = processes_start()
    dog.beat()
    base = run.input("base", dog.beat) if "base" in run.input_roles() else None
    if base is None and "tokenizer" not in run.input_roles():
        raise RefusedError("a model from random weights needs a tokenizer, a continued one a base")
    tokenizer = tokenizer_load(base or run.input("tokenizer"))
    special = special_tokens(tokenizer, config.objective, multiple=config.vocabulary_multiple)
    sources = sources_open(run, config, special, dog)
    mixture = mixture_make(sources, config)
    planned = accounts(mixture, sources, config)
    if processes.rank == 0:
        for one in planned:
            print(
                f"{one['source']}: {one['tokens']:,} tokens, {one['epochs']:.2f} epochs", flush=True
            )

    def make() -> Any:
        torch.manual_seed(config.seed)
        model = model_make(config, special) if base is None else model_continue(base, config)
        if model.get_input_embeddings().num_embeddings < special.vocabulary:
            model.resize_token_embeddings(special.table)
        return model

    model = make()
    size = model_size(model, config)
    parameters = sum(weight.numel() for weight in model.parameters())
    context = getattr(model.config, "max_position_embeddings", None)
    if context and context < config.block_tokens:
        raise RefusedError(
            f"the base has {context} positions, and block_tokens is {config.block_tokens}"
        )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    processes.prepare(
        model,
        tensor_parallel=config.tensor_parallel,
        expert_parallel=config.expert_parallel,
        pipeline_parallel=config.pipeline_parallel,
        zero_stage=config.zero_stage,
    )
    dog.beat()
    if processes.pipeline is None:  # a stage is on its device, and nowhere else
        model.to(processes.device)
    else:
        processes.pipeline.stage.context = partial(precision, config)
    flops = token_flops(
        config.architecture,
        size,
        vocabulary=model.get_input_embeddings().num_embeddings,
        context=config.context_tokens or config.block_tokens,
        block_tokens=config.block_tokens,
    )
    rate = processes.sum({"rate": matmul_rate(processes.device, dtype_named(config.dtype))})
    matmul_per_s = rate["rate"] / processes.readers
    watch = Watch(sources=sources, special=special, tokenizer=tokenizer, processes=processes)
    progress = train(
        run,
        config,
        model,
        sources,
        mixture,
        special,
        watch,
        processes,
        dog,
        flops_per_token=flops,
        matmul_per_s=matmul_per_s,
    )
    trained = processes.gather(model, make)
    dog.beat()
    if trained is None:
        return  # the first rank publishes
    folder = run.output("model")
    model_save(trained.cpu(), tokenizer, folder, dtype="bfloat16")
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": type(trained).__name__,
            "parameters": parameters,
            "dtype": "bfloat16",
            "context_tokens": _context(trained, config),
            "chat_template": tokenizer.chat_template or "",
            **told(progress, watch, sources, flops, matmul_per_s * processes.world, parameters),
            "planned": planned,
            "next_sample": sample_next(progress.step, config, progress.skips),
        },
    )


def _context(model: Any, config: PretrainConfig) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or config.block_tokens)


def told(
    progress: Progress,
    watch: Watch,
    sources: list[TokenSource],
    flops_per_token: float,
    matmul_per_s: float,
    parameters: int,
) -> dict[str, Any]:
    """What was measured, for the run's page."""
    tokens_per_s = progress.timed_tokens / progress.timed_s if progress.timed_s else 0.0
    by_source = watch.by_source()
    replayed = [one for one in by_source if one["is_replay"]]
    found: dict[str, Any] = {
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_of": {
            source.name: count
            for source, count in zip(sources, progress.source_tokens, strict=True)
        },
        "tokens_per_parameter": chinchilla_ratio(progress.tokens, parameters),
        "loss": progress.losses[-1],
        "tokens_per_s": tokens_per_s,
        "flops_per_token": flops_per_token,
        "flops": flops_per_token * progress.tokens,
        "matmul_flops_per_s": matmul_per_s,
        "mfu": tokens_per_s * flops_per_token / matmul_per_s,
        "sources": by_source,
        "curve": [{"step": step, "loss": loss} for step, loss in progress.curve],
        "validation": watch.losses,
    }
    if replayed:
        # Positive: the model is worse at what it could before; nats per token.
        found["forgotten_nats"] = sum(
            one["loss_after"] - one["loss_before"] for one in replayed
        ) / len(replayed)
    if progress.spikes:
        found["spikes"] = [
            {
                "step": one.step,
                "reason": one.reason,
                "back_to_step": one.back_to_step,
                "first_sample": one.first_sample,
                "last_sample": one.last_sample,
            }
            for one in progress.spikes
        ]
        found["spike_blocks"] = [
            {
                "step": one.step,
                "source": block["source"],
                "block": block["block"],
                "loss": block["loss"],
                "documents": ", ".join(block["documents"]),
            }
            for one in progress.spikes
            for block in one.blocks
        ]
    if watch.samples:
        found["samples"] = watch.samples
    return found


if __name__ == "__main__":
    program_run(main)
