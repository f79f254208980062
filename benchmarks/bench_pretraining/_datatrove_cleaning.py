"""datatrove's own pipeline over a file of JSON Lines, run by a Python that has datatrove.

    PYTHON _datatrove_cleaning.py ROWS.jsonl FOLDER TOKENIZER.json WORKERS

Filters, MinHash in its four stages, tokens. One JSON line on standard output: seconds of each
stage by the clock and of the processor, ids that the filters kept, and how many documents were left
by MinHash. Its processes are forked, not its default's fork server: they start faster, having
everything imported, and what they used of the processor can be counted.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter

BUCKETS, HASHES = 14, 8


def main(rows: str, folder: str, tokenizer: str, workers: int) -> None:
    out = Path(folder)
    seconds: dict[str, float] = {}
    cpu_s: dict[str, float] = {}
    runs = 0

    def run(name: str, steps: list, tasks: int = workers) -> None:
        nonlocal runs
        runs += 1  # a folder of logs each: what it says is done is not done again
        started, cpu_started = time.perf_counter(), sum(os.times()[:4])
        LocalPipelineExecutor(
            steps,
            tasks=tasks,
            workers=workers,
            logging_dir=str(out / "logs" / str(runs)),
            start_method="fork",
        ).run()
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        cpu_s[name] = cpu_s.get(name, 0.0) + sum(os.times()[:4]) - cpu_started

    source = Path(rows)
    run(
        "filters",
        [
            JsonlReader(str(source.parent), glob_pattern=source.name.replace(".0.", ".*.")),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            FineWebQualityFilter(),
            C4QualityFilter(),
            JsonlWriter(str(out / "filtered")),
        ],
    )
    config = MinhashConfig(num_buckets=BUCKETS, hashes_per_bucket=HASHES)
    minhash = str(out / "minhash")
    reader = JsonlReader(str(out / "filtered"))
    run("dedup", [reader, MinhashDedupSignature(f"{minhash}/signatures", config=config)])
    run(
        "dedup",
        [MinhashDedupBuckets(f"{minhash}/signatures", f"{minhash}/buckets", config=config)],
        BUCKETS,
    )
    cluster = MinhashDedupCluster(f"{minhash}/buckets", f"{minhash}/remove", config=config)
    run("dedup", [cluster], 1)
    dropping = MinhashDedupFilter(f"{minhash}/remove")
    run("dedup", [reader, dropping, JsonlWriter(str(out / "left"))])
    run(
        "tokens",
        [
            JsonlReader(str(out / "left")),
            DocumentTokenizer(str(out / "tokens"), tokenizer, shuffle_documents=False),
        ],
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_s": cpu_s,
                "kept": sorted(_ids(out / "filtered")),
                "left": sum(1 for _ in _ids(out / "left")),
            }
        )
    )


def _ids(folder: Path):
    for path in folder.glob("*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["id"] for line in file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
