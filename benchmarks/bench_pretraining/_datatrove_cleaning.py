"""datatrove's own pipeline over a file of JSON Lines, run by a Python that has datatrove.

    PYTHON _datatrove_cleaning.py ROWS.0.jsonl FOLDER TOKENIZER.json LANGUAGES.ftz WORKERS

Language, filters, MinHash in its four stages, personal data, tokens. One JSON line on standard
output: seconds of each stage by the clock and of the processor, ids that each filter dropped and
that all of them kept, and how many documents were left by MinHash. Its processes are forked, not
its default's fork server: they start faster, having everything imported, and what they used of the
processor can be counted. Seconds of each filter are datatrove's own, of all processes together.
"""

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
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FT176LID

BUCKETS, HASHES = 14, 8


class Dropped:
    """What an exclusion writer is asked for, and no more than the id and reason of a document."""

    def __init__(self, folder: Path, name: str) -> None:
        self.place, self.name = folder, name

    def __enter__(self):
        self.place.mkdir(parents=True, exist_ok=True)
        self.file = (self.place / f"{self.name}.{os.getpid()}").open("w")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, document, rank: int) -> None:
        self.file.write(f"{document.id}\t{document.metadata.get('filter_reason', '')}\n")


def main(rows: str, folder: str, tokenizer: str, languages: str, workers: int) -> None:
    out = Path(folder)
    seconds: dict[str, float] = {}
    cpu_s: dict[str, float] = {}
    steps_s: dict[str, float] = {}
    runs = 0
    os.environ["HF_ASSETS_CACHE"] = str(out / "assets")
    FT176LID.MODEL_URL = languages  # the file, for there is no network: it would be downloaded

    def run(name: str, steps: list, tasks: int = workers) -> None:
        nonlocal runs
        runs += 1  # a folder of logs each: what it says is done is not done again
        started, cpu_started = time.perf_counter(), sum(os.times()[:4])
        told = LocalPipelineExecutor(
            steps,
            tasks=tasks,
            workers=workers,
            logging_dir=str(out / "logs" / str(runs)),
            start_method="fork",
        ).run()
        for one in told.stats:
            steps_s[f"{runs} {one.name}"] = one.time_stats.total
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        cpu_s[name] = cpu_s.get(name, 0.0) + sum(os.times()[:4]) - cpu_started
        print(f"{name}: {seconds[name]:.1f} s", file=sys.stderr, flush=True)

    source = Path(rows)
    dropped = out / "dropped"
    run(
        "filters",
        [
            _reader(source),
            LanguageFilter(label_only=True),
            GopherRepetitionFilter(exclusion_writer=Dropped(dropped, "repetition")),
            GopherQualityFilter(exclusion_writer=Dropped(dropped, "quality")),
            FineWebQualityFilter(exclusion_writer=Dropped(dropped, "fineweb")),
            C4QualityFilter(exclusion_writer=Dropped(dropped, "c4")),
            _writer(out / "filtered"),
        ],
    )
    config = MinhashConfig(num_buckets=BUCKETS, hashes_per_bucket=HASHES)
    minhash = str(out / "minhash")
    reader = _reader(out / "filtered")
    run("dedup", [reader, MinhashDedupSignature(f"{minhash}/signatures", config=config)])
    run(
        "dedup",
        [MinhashDedupBuckets(f"{minhash}/signatures", f"{minhash}/buckets", config=config)],
        BUCKETS,
    )
    cluster = MinhashDedupCluster(f"{minhash}/buckets", f"{minhash}/remove", config=config)
    run("dedup", [cluster], 1)
    dropping = MinhashDedupFilter(f"{minhash}/remove")
    run("dedup", [reader, dropping, _writer(out / "left")])
    run(
        "tokens",
        [
            _reader(out / "left"),
            PIIFormatter(),
            DocumentTokenizer(
                str(out / "tokens"), tokenizer, eos_token="<|endoftext|>", shuffle_documents=False
            ),
        ],
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_s": cpu_s,
                "steps_s": steps_s,
                "dropped": _dropped(dropped),
                "kept": sorted(_ids(out / "filtered")),
                "left": sum(1 for _ in _ids(out / "left")),
                "tokens": sum(path.stat().st_size for path in (out / "tokens").glob("*.ds")) // 2,
            }
        )
    )


def _reader(source: Path) -> JsonlReader:
    if source.suffix:
        return JsonlReader(str(source.parent), glob_pattern=source.name.replace(".0.", ".*."))
    return JsonlReader(str(source))


def _writer(folder: Path) -> JsonlWriter:
    return JsonlWriter(str(folder), compression=None)  # not its default's gzip, which takes longer


def _dropped(folder: Path) -> dict[str, list[str]]:
    """id → [filter, reason]."""
    return {
        one: [path.name.partition(".")[0], reason]
        for path in folder.iterdir()
        for one, _, reason in (line.partition("\t") for line in path.read_text().splitlines())
    }


def _ids(folder: Path):
    for path in folder.glob("*.jsonl"):
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line)["id"] for line in file)


if __name__ == "__main__":
    main(*sys.argv[1:5], workers=int(sys.argv[5]))
