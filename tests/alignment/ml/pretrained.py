"""A tiny policy of an architecture that pretraining makes, and what any policy is asked to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modelhub.ml import generate
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, model_save
from modelhub.ml.manifest import manifest_write
from modelhub.ml.playground import prompt_lay
from modelhub.ml.pretraining.architectures import Special, model_config
from modelhub.ml.pretraining.presets import SIZES
from modelhub.ml.rundir import RunDir
from modelhub.ml.trials import PlaygroundConfig
from modelhub.ml.writer import Writer
from tests.alignment.ml.programs import lines_of, prompts_write, run_make
from tests.tiny_model import tiny_tokenizer

IDS = ["p00", "p01"]


def pretrained_write(folder: Path, architecture: str, causal: Any, **settings: Any) -> Path:
    """Random weights of the smallest size. causal: transformers' class; settings: over its own."""
    tokenizer = tiny_tokenizer()
    special = Special(
        vocabulary=len(tokenizer),
        table=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
    )
    size = SIZES[architecture]["tiny"]
    config = model_config(architecture, size, special, context=256, dropout=0.0)
    for name, value in settings.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model_save(causal(config), tokenizer, folder, dtype="float32")
    manifest_write(folder)
    return folder


def said(folder: Path, **models: Path) -> list[str]:
    """What a policy answers to IDS, greedily. models: the inputs by which it is read."""
    inputs = {**models, "prompts": prompts_write(folder / "prompts", IDS)}
    config = {"engine": "transformers", "temperatures": [0.0], "samples": 1, "max_tokens": 16}
    drawn = run_make(folder / "drawn", "generate", inputs, config)
    generate.main(RunDir(drawn))
    rows = lines_of(drawn / "outputs" / "candidates" / "candidates.jsonl")
    return [one["text"] for one in rows]


def playground_check(base: Path, plain: Any = None) -> None:
    """The playground writes greedily what transformers writes.

    plain: the model as transformers has it, where it is not as it is loaded here.
    """
    config = PlaygroundConfig(
        models=("one v1",),
        strategies=({"kind": "greedy"},),
        prompt="One two",
        layout="plain",
        max_tokens=8,
    )
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(base), tokenizer, config)
    read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    *_, written = writer.write(read, config.decodings[0])
    ids = torch.tensor([tokenizer("One two")["input_ids"]])
    model = model_load(base, dtype="float32") if plain is None else plain
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=2
    )
    assert _ids(written) == out[0, ids.shape[1] :].tolist()


def _ids(written: Sequence[Any]) -> list[int]:
    return [one.id for one in written]
