"""Run directories, small models and killed processes for the tests of the training programs."""

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from annotation.records import DemonstrationRecord
from modelhub.ml.manifest import manifest_write
from modelhub.ml.records import CandidateRecord, PromptRecord, lines_read, records_write
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.ranks import program_start
from tests.tiny_model import tiny_tokenizer


def run_make(
    folder: Path, program: str, inputs: Mapping[str, Path], config: Mapping[str, Any]
) -> Path:
    """A run directory as the runner or a person by hand makes it; inputs are artifact folders."""
    folder.mkdir(parents=True)
    described = {
        "program": program,
        "config": dict(config),
        "inputs": {
            role: {"path": str(path), "sha256": manifest_write(path)}
            for role, path in inputs.items()
        },
    }
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())["result"]


def metrics_of(run: Path) -> dict[int, dict[str, float]]:
    """The last values written for each step, those that depend on the clock left out."""
    found: dict[int, dict[str, float]] = {}
    for line in lines_of(run / "metrics.jsonl"):
        values = line["values"]
        for name in ("tokens_per_s", "mfu"):
            values.pop(name, None)
        found.setdefault(line["step"], {}).update(values)
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Of metrics.jsonl those with figures: where training went back there is another kind."""
    return [value for _, value in lines_read(path) if "rewound_to" not in value]


def program_kill(
    main: Callable[[RunDir], None], run: Path, when: Callable[[], bool], *, timeout_s: float = 120
) -> None:
    """Start a program in a process of its own and SIGKILL it once `when` holds."""
    process = program_start(main, run)
    deadline = time.monotonic() + timeout_s
    while not when():
        assert process.is_alive(), f"ended by itself: {(run / 'log.txt').read_text()}"
        assert time.monotonic() < deadline, "nothing to kill in time"
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (run / "result.json").exists()


def checkpoints_of(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def tiny_reward_write(folder: Path, base: Path, *, seed: int = 0, head: float = 1.0) -> Path:
    """A reward model on the tiny base with a random head, its entries of size `head`."""
    import torch

    from modelhub.ml.checkpoint import model_load, model_save

    model = model_load(base, dtype="float32", role="reward", new_head=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.score.weight.copy_(head * torch.randn(model.score.weight.shape, generator=generator))
    model_save(model, tiny_tokenizer(), folder, dtype="float32")
    return folder


def tiny_gpt2_write(folder: Path, *, dropout: float) -> Path:
    """A tiny random GPT-2, whose training draws random numbers for its dropout."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from modelhub.ml.checkpoint import model_save

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=256,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model_save(model, tokenizer, folder, dtype="float32")
    return folder


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def demonstration_written(number: int, text: str, **values: Any) -> DemonstrationRecord:
    """What a person wrote, as a snapshot has it."""
    record = DemonstrationRecord(
        id=f"d{number}",
        prompt_id=f"p{number}",
        messages=messages("Say it"),
        split="train",
        tags=[],
        batch=None,
        candidate={
            "id": f"c{number}",
            "text": text,
            "finish_reason": "stop",
            "token_count": None,
            "model_version": None,
        },
        started_from=None,
        turns=[],
        annotator="one",
        is_simulated=False,
        source="person",
        weight=1.0,
        active_s=1.0,
        rationale="",
        guideline=None,
    )
    return dataclasses.replace(record, **values)


def prompts_write(folder: Path, ids: list[str]) -> Path:
    folder.mkdir(parents=True)
    records_write(
        folder / "prompts.jsonl",
        [PromptRecord(prompt_id=one, messages=messages(f"Say {one}")) for one in ids],
    )
    return folder


def candidate(
    prompt_id: str, index: int, text: str, finish_reason: str = "stop", **fields: Any
) -> CandidateRecord:
    decoding = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **fields}
    return CandidateRecord(
        prompt_id=prompt_id,
        index=index,
        text=text,
        token_count=len(text) + (finish_reason == "stop"),
        finish_reason=finish_reason,
        mean_logprob=-1.5,
        seed=7,
        max_tokens=64,
        engine="test",
        **decoding,
    )


def candidates_write(folder: Path, candidates: list[CandidateRecord]) -> Path:
    folder.mkdir(parents=True)
    records_write(folder / "candidates.jsonl", candidates)
    return folder
