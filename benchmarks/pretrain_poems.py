"""A small model that has read the classical poems goes on from 春眠不覺曉: does it keep the form?

    python -m benchmarks.pretrain_poems [--folder FOLDER] [--size 3m] [--steps 800] [--simplified]

Reads ../shared/data. A GPT-2 from scratch (--size), WordPiece (a token for every
character: a line of verse is a number of tokens), on every fourth poem, which are in traditional
characters; with --simplified every other one of these is read in simplified ones (OpenCC), so that
春眠不觉晓 is a beginning of its kind too. The run is the hub's; its
folder is kept, and killed and started again on it, it goes on. JSON lines on standard output: what
the run says of itself; then how many lines have five characters or seven (modelhub/ml/verse.py) in
real poems and in DRAWN continuations of each beginning.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.pretrain_mixture import (
    BEGINNINGS,
    POEMS,
    documents_read,
    form_told,
    poems_both,
    poems_drawn,
    tokens_write,
    told,
)
from benchmarks.pretrain_sanguo import dtype_faster, run
from modelhub.ml.tokenising.configs import TrainTokenizerConfig
from modelhub.ml.tokenising.tokenizers import tokenizer_train

CHARACTERS = {False: 9216, True: 10_240}  # the poems have 8,961, in both scripts 9,549


def texts_prepare(folder: Path, *, simplified: bool) -> None:
    mark = folder / ("prepared-both" if simplified else "prepared-traditional")
    if mark.exists():
        return
    for other in folder.glob("prepared-*"):  # of the other scripts, in the same files
        other.unlink()
    poems = documents_read(POEMS)
    # Ends of lines are no word of WordPiece; the marks say as much.
    poems = poems_both(poems) if simplified else [poem.replace("\n", "") for poem in poems]
    vocabulary = CHARACTERS[simplified]
    config = TrainTokenizerConfig(algorithm="wordpiece", vocabulary=vocabulary, chat=False)
    tokenizer = tokenizer_train(iter(poems), config)
    tokenizer.save_pretrained(folder / "tokenizer")
    tokens_write(tokenizer, POEMS, poems, folder / "tokens")
    mark.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=800, help="of 8 blocks of 256 tokens")
    parser.add_argument("--size", choices=("tiny", "3m", "9m"), default="3m")
    parser.add_argument("--simplified", action="store_true", help="every other poem")
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="poems-"))
    folder.mkdir(exist_ok=True, parents=True)
    began = time.monotonic()
    texts_prepare(folder, simplified=asked.simplified)
    recipe: dict[str, Any] = {
        "preset": "novel",
        "size": asked.size,
        "blocks_per_step": 8,
        "steps": asked.steps,
        "lr": 2e-3,
        "dtype": dtype_faster(),
        "evaluate_every_steps": 120,
        "checkpoint_every_steps": 20,
    }
    inputs = {"tokenizer": folder / "tokenizer", "tokens": folder / "tokens"}
    result = run(folder / "run", inputs, **recipe)
    print(told("poems", result, time.monotonic() - began), flush=True)
    print(form_told("real poems", documents_read(POEMS)[:1000]), flush=True)
    for beginning in BEGINNINGS:
        texts = poems_drawn(folder / "run" / "outputs" / "model", beginning)
        print(form_told("the model", [text.replace(" ", "") for text in texts], beginning))
        print(json.dumps({"beginning": beginning, "all": texts}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
