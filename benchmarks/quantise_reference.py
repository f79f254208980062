"""What quantising SmolLM2-135M-Instruct costs: perplexity, accuracy, size, and speed in vLLM.

    python -m benchmarks.quantise_reference --folder var/quantise-reference
    python -m benchmarks.quantise_reference --schemes w8a8 q4_0 --speed-prompts 0

Heard on held-out and validation questions of GSM8K with their worked answers (the first
--conversations of the file; the site's own function says which side a question is on). Accuracy is
on as many of the questions: the right number among four, by log-probability. w8a8 and w4a16 are
the program `quantise`'s, q8_0 and q4_0 files of `export_gguf`, read back as an import reads them
and measured by the same functions. Speed: tokens a second of `generate` on the engine that is
there, --speed-prompts prompts at once, 64 tokens each; 0: not measured. One JSON line a scheme.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from alignment.ml.checkers import REFERENCES_NAME, ReferenceRecord
from alignment.ml.configs import QuantiseConfig
from alignment.ml.quantise import beside, measuring_make
from annotation.splits import content_hash
from benchmarks.base_model import smollm2_prepare
from benchmarks.runs import program_run, reference_parser
from benchmarks.sft_reference import rows_read
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.import_model import gguf_load
from modelhub.ml.manifest import manifest_write
from modelhub.ml.records import PromptRecord, json_canonical, records_write
from modelhub.ml.rundir import RunDir

SCHEMES: dict[str, dict[str, Any]] = {
    "w8a8": {"scheme": "w8a8"},
    "w4a16-g32": {"scheme": "w4a16", "group_size": 32},
    "w4a16-g64": {"scheme": "w4a16", "group_size": 64},
}
GGUF = ("q8_0", "q4_0")
SAMPLING = {"samples": 1, "temperatures": [0.0], "max_tokens": 64, "max_context_tokens": 512}


def files_prepare(folder: Path, data: Path, conversations: int, prompts: int) -> None:
    """The model, what both are heard on, and the prompts of the speed."""
    smollm2_prepare(folder / "base")
    rows = rows_read(data / "gsm8k_train.jsonl.gz", conversations)
    for name in ("demonstrations", "prompts", "questions", "references"):
        (folder / name).mkdir(exist_ok=True)
    text = "".join(json_canonical(row) + "\n" for row in rows)
    (folder / "demonstrations" / "demonstrations.jsonl").write_text(text, encoding="utf-8")
    records = [
        PromptRecord(prompt_id=f"p{number:03}", messages=row["messages"][:1])
        for number, row in enumerate(rows[:prompts])
    ]
    records_write(folder / "prompts" / "prompts.jsonl", records)
    questions, references = [], []
    for row in rows:
        asked, answer = row["messages"]
        prompt_id = content_hash([asked])[:32]
        questions.append(PromptRecord(prompt_id=prompt_id, messages=[asked]))
        references.append(ReferenceRecord(prompt_id=prompt_id, answer=answer["content"]))
    records_write(folder / "questions" / "prompts.jsonl", questions)
    records_write(folder / "references" / REFERENCES_NAME, references)


def speed(folder: Path, name: str, model: Path) -> dict[str, Any]:
    inputs = {"model": model, "prompts": folder / "prompts"}
    found = program_run(folder / f"speed-{name}", "generate", SAMPLING, inputs)
    return {key: found[key] for key in ("engine", "tokens_per_s", "load_s")}


def gguf_table(folder: Path, name: str, inputs: dict[str, Path]) -> dict[str, Any]:
    """A GGUF file's figures, in the words of the program `quantise`."""
    base = inputs["base"]
    told = program_run(
        folder / name, "export_gguf", {"weight_type": name, "name": "model"}, {"base": base}
    )
    file = folder / name / "outputs" / "gguf" / told["file"]
    config = QuantiseConfig()
    # Its inputs are the same; the run's own folder has no demonstrations.
    described = {
        "program": "quantise",
        "config": {},
        "inputs": {
            role: {"path": str(path.resolve()), "sha256": manifest_write(path)}
            for role, path in inputs.items()
            if role != "base"
        },
    }
    measured = folder / f"{name}-measured"
    measured.mkdir(exist_ok=True)
    (measured / "config.json").write_text(json_canonical(described))
    tokenizer = tokenizer_load(base)
    measuring = measuring_make(RunDir(measured), config, tokenizer, config.max_tokens)
    before = measuring.measure(model_load(base, dtype="float32"))
    after = measuring.measure(gguf_load(file)[0])
    return {
        "conversations": len(before.heard),
        "questions": len(before.answered),
        "weights_bytes": told["file_bytes"],
        "parent_weights_bytes": told["parent_weights_bytes"],
        "beside_parent": beside(before, after, config),
    }


def main() -> None:
    parser = reference_parser(__doc__, "var/quantise-reference")
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--speed-prompts", type=int, default=32)
    parser.add_argument(
        "--schemes", nargs="+", choices=[*SCHEMES, *GGUF], default=[*SCHEMES, *GGUF]
    )
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    files_prepare(folder, given.data, given.conversations, given.speed_prompts)
    if given.speed_prompts:
        print(json_canonical({"scheme": "", **speed(folder, "base", folder / "base")}), flush=True)
    inputs = {
        "base": folder / "base",
        "demonstrations": folder / "demonstrations",
        "evaluation_prompts": folder / "questions",
        "references": folder / "references",
    }
    for name in given.schemes:
        started = time.monotonic()
        if name in GGUF:
            result = gguf_table(folder, name, inputs)
        else:
            result = program_run(folder / name, "quantise", SCHEMES[name], inputs)
        minutes = round((time.monotonic() - started) / 60, 1)
        table = {row["figure"]: row for row in result.pop("beside_parent")}
        kept = ("conversations", "questions", "weights_bytes", "parent_weights_bytes", "divergence")
        line = {"scheme": name, **{key: result[key] for key in kept if key in result}, **table}
        if given.speed_prompts and name not in GGUF:
            line |= speed(folder, name, folder / name / "outputs" / "model")
        print(json.dumps({**line, "minutes": minutes}), flush=True)


if __name__ == "__main__":
    main()
