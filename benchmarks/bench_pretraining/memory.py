"""Memory of making a token set, of a corpus once, four and sixteen times as large.

    python -m benchmarks.bench_pretraining.memory [--megabytes 4]

JSON lines on standard output: the peak of resident memory of the tokenising program, one process,
as the kernel counts it, beside the corpus's bytes; then the `ratio` of the largest to the smallest.
The corpus is made up (words of a fixed vocabulary, seeded), for its words do not matter here.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from modelhub.ml.corpora.documents import CorpusWriter, Document
from modelhub.ml.manifest import manifest_write
from modelhub.ml.tokenising.configs import TrainTokenizerConfig
from modelhub.ml.tokenising.tokenizers import tokenizer_train

TIMES = (1, 4, 16)
AIMED_AT = 1.2  # flat but for 16 bytes a document
_WORDS, _WORDS_A_DOCUMENT = 20_000, 600


def texts(megabytes: float, seed: int = 0) -> list[str]:
    drawn = random.Random(seed)
    words = ["".join(drawn.choices("aeioubcdlmnrst", k=drawn.randint(3, 9))) for _ in range(_WORDS)]
    made, size = [], 0.0
    while size < megabytes * 1e6:
        made.append(" ".join(drawn.choices(words, k=_WORDS_A_DOCUMENT)))
        size += len(made[-1])
    return made


def corpus_write(folder: Path, documents: list[str], times: int) -> Path:
    folder.mkdir()
    with CorpusWriter(folder) as writer:
        for number in range(times * len(documents)):
            text = documents[number % len(documents)]
            writer.add(Document(id=f"d{number}", text=text, source="made up"))
    return folder


def peak_mb(run: Path, corpus: Path, tokenizer: Path) -> tuple[float, float]:
    """(MB of resident memory at most, seconds) of the program on a corpus."""
    run.mkdir()
    inputs = {
        role: {"path": str(path), "sha256": manifest_write(path)}
        for role, path in (("corpus", corpus), ("tokenizer", tokenizer))
    }
    config = {"workers": 1, "shard_characters": 8_000_000}
    document = {"program": "tokenise", "config": config, "inputs": inputs}
    (run / "config.json").write_text(json.dumps(document))
    began = time.monotonic()
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run([sys.executable, '-m', 'modelhub.ml.tokenising.tokenise', sys.argv[1]], "
        "check=True, stdout=sys.stderr); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout) / 1024, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=4.0, help="of the smallest corpus")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        documents = texts(asked.megabytes)
        tokenizer = folder / "tokenizer"
        tokenizer_train(
            iter(documents[:100]), TrainTokenizerConfig(vocabulary=4096)
        ).save_pretrained(tokenizer)
        peaks = []
        for times in TIMES:
            corpus = corpus_write(folder / f"corpus{times}", documents, times)
            peak, seconds = peak_mb(folder / f"run{times}", corpus, tokenizer)
            peaks.append(peak)
            told = {
                "measured": "memory of tokenising",
                "corpus_megabytes": round(asked.megabytes * times, 1),
                "documents": len(documents) * times,
                "peak_megabytes": round(peak),
                "seconds": round(seconds, 1),
            }
            print(json.dumps(told), flush=True)
    ratio = peaks[-1] / peaks[0]
    told = {"measured": "memory of tokenising", "ratio": round(ratio, 3), "aimed_at": AIMED_AT}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
