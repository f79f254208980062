"""A novel alone, from scratch: tokenizer, token set, GPT-2 of 9 million weights, a continuation.

    python -m benchmarks.pretrain_sanguo                 三国演义, a few minutes
    python -m benchmarks.pretrain_sanguo --then 红楼梦    and then that novel, replaying the first

Reads ../shared/data. The tokenizer is byte-level BPE of 8,192 tokens; a chapter is a document. The
runs are those of the hub, in a folder that is kept (--folder): killed and started again on it, they
go on. Products are in whichever of bfloat16 and float32 this machine multiplies faster in. JSON
lines on standard output: what each run says of itself, the seconds by the clock and of the
processor that it took, and what the model writes behind 话说天下大势.
"""

import argparse
import gzip
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.manifest import manifest_write
from modelhub.ml.pretraining.shards import MappedShards
from modelhub.ml.pretraining.throughput import matmul_rate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NOVELS = {"三国演义": "sanguo", "西游记": "xiyouji", "红楼梦": "hongloumeng", "水浒传": "shuihu"}
BEGINNING = "话说天下大势"
VOCABULARY = 8192
_CHAPTER = re.compile(r"(?m)^(?=\s*第[一二三四五六七八九十百零〇○]+[回卷])")


def chapters_read(name: str) -> list[str]:
    """The chapters of a novel; 61,440 characters each where it marks none."""
    text = gzip.decompress((DATA / f"{NOVELS[name]}.txt.gz").read_bytes()).decode()
    found = [part for part in _CHAPTER.split(text) if part.strip()]
    return found if len(found) > 10 else [text[i : i + 61_440] for i in range(0, len(text), 61_440)]


def tokenizer_make(texts: list[str], folder: Path) -> Any:
    if folder.exists():
        return tokenizer_load(folder)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def tokens_write(tokenizer: Any, texts: list[str], folder: Path) -> int:
    if folder.exists():
        return MappedShards(folder).tokens
    folder.mkdir()
    documents = [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]
    np.concatenate(documents).astype(np.uint16).tofile(folder / "00000.ds")
    ends = np.cumsum([len(document) for document in documents]).astype(np.uint64)
    ends.tofile(folder / "00000.ds.index")
    return int(ends[-1])


def dtype_faster() -> str:
    """The dtype whose products this processor computes faster, counted in seconds of its own."""
    rates = {
        name: matmul_rate(torch.device("cpu"), dtype, clock=time.process_time)
        for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
    }
    print({name: f"{rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()}, file=sys.stderr)
    return max(rates, key=lambda name: rates[name])


def processor_s() -> float:
    """Seconds of the processor that this process and those it ended have taken."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def run(folder: Path, inputs: dict[str, Path], **config: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    described = {
        role: {"path": str(path), "sha256": manifest_write(path)} for role, path in inputs.items()
    }
    document = {"program": "pretrain", "config": config, "inputs": described}
    (folder / "config.json").write_text(json.dumps(document))
    subprocess.run(
        [sys.executable, "-m", "modelhub.ml.pretraining", str(folder)],
        check=True,
        stdout=sys.stderr,
    )
    return json.loads((folder / "result.json").read_text())["result"]


def continuation(folder: Path, *, tokens: int = 60) -> str:
    """What the model writes, drawn at temperature 0.8 from the 40 likeliest, seed 0."""
    model, tokenizer = model_load(folder, dtype="float32"), tokenizer_load(folder)
    torch.manual_seed(0)
    prompt = torch.tensor([tokenizer.encode(BEGINNING)])
    written = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        do_sample=True,
        temperature=0.8,
        top_k=40,
        use_cache=True,
    )
    return tokenizer.decode(written[0], skip_special_tokens=True)


def told(name: str, dtype: str, result: dict[str, Any], text: str, *, began: float) -> str:
    return json.dumps(
        {
            "run": name,
            "dtype": dtype,
            "parameters": result["parameters"],
            "steps": result["steps"],
            "tokens": result["tokens"],
            "seconds": round(time.monotonic() - began),
            "processor_s": round(processor_s()),  # since the command began
            "tokens_per_s": round(result["tokens_per_s"]),
            "mfu": round(result["mfu"], 3),
            "validation": [
                {key: value if key == "step" else round(value, 3) for key, value in one.items()}
                for one in result["validation"]
            ],
            **(
                {"forgotten_nats": round(result["forgotten_nats"], 3)}
                if "forgotten_nats" in result
                else {}
            ),
            "continuation": text,
        },
        ensure_ascii=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=8, help="of 256 tokens, in a step")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    parser.add_argument("--then", choices=[name for name in NOVELS if name != "三国演义"])
    parser.add_argument("--then-steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="sanguo-"))
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    texts = chapters_read("三国演义")
    tokenizer = tokenizer_make(texts, folder / "tokenizer")
    tokens = tokens_write(tokenizer, texts, folder / "tokens")
    characters = sum(map(len, texts))
    print(
        f"{len(texts)} chapters, {characters:,} characters, {tokens:,} tokens, "
        f"{time.monotonic() - began:.0f} s",
        file=sys.stderr,
    )
    recipe = {
        "preset": "novel",
        "dtype": dtype_faster(),
        "steps": asked.steps,
        "blocks_per_step": asked.blocks,
        "optimizer": asked.optimizer,
        "validation_blocks": 64,
        "evaluate_every_steps": 25,
        "checkpoint_every_steps": 10,
        "sample_every_steps": 100,
        "sample_prompts": [BEGINNING],
    }
    inputs = {"tokenizer": folder / "tokenizer", "tokens": folder / "tokens"}
    result = run(folder / "run", inputs, **recipe)
    model = folder / "run" / "outputs" / "model"
    print(told("三国演义", recipe["dtype"], result, continuation(model), began=began), flush=True)
    if asked.then:
        began = time.monotonic()
        tokens_write(tokenizer, chapters_read(asked.then), folder / "then")
        inputs = {"base": model, "tokens": folder / "then", "replay": folder / "tokens"}
        more = {"steps": asked.then_steps, "lr": 3e-4, "warmup_steps": 10, "replay_share": 0.2}
        result = run(folder / "run-then", inputs, **{**recipe, **more})
        model = folder / "run-then" / "outputs" / "model"
        print(
            told(asked.then, recipe["dtype"], result, continuation(model), began=began), flush=True
        )


if __name__ == "__main__":
    main()
