"""Merge a LoRA adapter into its base: a model of its own, for tools that take no adapters.

    W' = W + (alpha / r) · B A

The sum is taken in float32 and published in bfloat16 by stochastic rounding, as every trained
weight is (`rounding`): most changes are smaller than bfloat16's steps.

By hand: `python -m alignment.ml.merge_adapter RUN_DIR`.
"""

from alignment.ml.adapters import trained_merge
from alignment.ml.configs import MergeAdapterConfig
from alignment.ml.reward.model import padding_set
from alignment.ml.rounding import weights_check, weights_round
from modelhub.ml.adapter import model_input, model_input_load
from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.checkpoint import model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.rundir import RunDir, program_run


def main(run: RunDir) -> None:
    config = run.config(MergeAdapterConfig)
    given = model_input(run, "adapter")
    if given.base is None:
        raise RefusedError("input adapter is a whole model: there is nothing to merge")
    adapter = adapter_directory_check(given.folder)
    if adapter.kind != "lora":
        raise RefusedError(
            f"{adapter.kind} puts tokens in front of a prompt and changes no weight of the model: "
            "it cannot be merged"
        )
    merged = trained_merge(model_input_load(given, dtype="float32", role=adapter.role, merge=False))
    weights_check(merged)
    if config.dtype == "bfloat16":
        weights_round(merged, seed=config.seed)
    folder = run.output("model")
    tokenizer = tokenizer_load(given.whole)
    if adapter.role == "reward":
        padding_set(merged, tokenizer)
    model_save(merged, tokenizer, folder, dtype=config.dtype)
    facts = model_directory_check(folder)
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
            "rank": adapter.rank,
        },
    )


if __name__ == "__main__":
    program_run(main)
