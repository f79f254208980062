"""Four novels, the classical poems and Shakespeare: one base, its poems, and what it forgot.

    OMP_NUM_THREADS=1 python -m benchmarks.pretrain_mixture [--folder FOLDER] [--characters]

Reads ../shared/data. Two runs of the hub, in a folder that is kept (killed and started again on it,
they go on): a GPT-2 of 3 million weights on six sources, by size evened out (temperature 2), the
poems given more from two thirds of the steps on; then that base on the poems alone, a tenth of the
blocks replayed from the others. JSON lines on standard output: tokens, epochs and perplexities of
each source; then what the poet writes behind 春眠不覺曉, and how many of its lines have five
characters or seven (modelhub/ml/verse.py), beside those of real poems and of the base.

The poems are in traditional characters, as their source has them; the beginning in simplified ones
(春眠不觉晓) is tried too. With --characters a token is a character (WordPiece), so that a line of
verse is a number of tokens, and every other poem is read in simplified characters (OpenCC):
`--characters --poem-steps 800` is the base that learns the form.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pretrain_sanguo import (
    DATA,
    NOVELS,
    VOCABULARY,
    chapters_read,
    dtype_faster,
    processor_s,
    run,
)
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.pretraining.shards import MappedShards
from modelhub.ml.tokenising.configs import TrainTokenizerConfig
from modelhub.ml.tokenising.tokenizers import tokenizer_train
from modelhub.ml.tokenising.writer import TokenFileWriter, dtype_for
from modelhub.ml.verse import verse_form

POEMS, SHAKESPEARE = "poems", "Shakespeare"
SOURCES = (*NOVELS.values(), POEMS, SHAKESPEARE)
BEGINNINGS = ("春眠不覺曉，", "春眠不觉晓，")
DRAWN = 16  # continuations of each beginning
POEM_TOKENS = 96
CHARACTERS = 12_288  # the sources have 10,328, and Shakespeare's words want pieces
_POEMS_KEPT = 4  # every fourth: 19,757 poems are more than either run reads
_SPEECHES = 20  # of Shakespeare's, a document


def documents_read(source: str) -> list[str]:
    """A novel's chapters, the poems, or twenty speeches at a time."""
    if source == POEMS:
        with gzip.open(DATA / "classical_poems.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in file][::_POEMS_KEPT]
    if source == SHAKESPEARE:
        text = gzip.decompress((DATA / "tinyshakespeare.txt.gz").read_bytes()).decode()
        speeches = text.split("\n\n")
        return [
            "\n\n".join(speeches[at : at + _SPEECHES]) for at in range(0, len(speeches), _SPEECHES)
        ]
    return chapters_read(next(name for name, file in NOVELS.items() if file == source))


def poems_both(poems: list[str]) -> list[str]:
    """The poems on one line each, every other one in simplified characters.

    Ends of lines are no word of WordPiece; the marks say as much.
    """
    from opencc import OpenCC

    convert = OpenCC("t2s").convert
    flat = [poem.replace("\n", "") for poem in poems]
    return [convert(poem) if at % 2 else poem for at, poem in enumerate(flat)]


def texts_prepare(folder: Path, *, characters: bool) -> dict[str, Path]:
    """A tokenizer of all sources and a token set of each: input role → folder."""
    places = {source: folder / f"tokens-{source}" for source in SOURCES}
    mark = folder / ("prepared-characters" if characters else "prepared-bytes")
    if not mark.exists():
        for other in folder.glob("prepared-*"):  # of the other tokenizer, in the same files
            other.unlink()
        texts = {source: documents_read(source) for source in SOURCES}
        config = TrainTokenizerConfig(vocabulary=VOCABULARY)
        if characters:
            texts[POEMS] = poems_both(texts[POEMS])
            config = TrainTokenizerConfig(algorithm="wordpiece", vocabulary=CHARACTERS, chat=False)
        every = (text for documents in texts.values() for text in documents)
        tokenizer = tokenizer_train(every, config)
        tokenizer.save_pretrained(folder / "tokenizer")
        for source, documents in texts.items():
            tokens_write(tokenizer, source, documents, places[source])
        mark.touch()
    return places


def tokens_write(tokenizer: Any, source: str, documents: list[str], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    dtype = dtype_for(len(tokenizer))
    writer = TokenFileWriter(folder / "00000.ds", dtype=dtype, tokenizer="mixture")
    rows = tokenizer.backend_tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    ended = [[*row.ids, tokenizer.eos_token_id] for row in rows]
    writer.add(
        np.concatenate([np.array(one, dtype=np.uint32) for one in ended]),
        np.array([len(one) for one in ended], dtype=np.int64),
        [(f"{source}-{number}", source) for number in range(len(documents))],
    )
    writer.close()


def roles(places: Iterable[Path], stem: str) -> dict[str, Path]:
    """stem, stem_2, … → token sets."""
    return {stem if not at else f"{stem}_{at + 1}": place for at, place in enumerate(places)}


def poems_drawn(folder: Path, beginning: str) -> list[str]:
    """DRAWN texts that begin so, at temperature 0.8 from the 40 likeliest, seed 0."""
    model, tokenizer = model_load(folder, dtype="float32"), tokenizer_load(folder)
    torch.manual_seed(0)
    prompt_BT = torch.tensor([tokenizer.encode(beginning, add_special_tokens=False)] * DRAWN)
    written = model.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        max_new_tokens=POEM_TOKENS,
        do_sample=True,
        temperature=0.8,
        top_k=40,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [tokenizer.decode(row, skip_special_tokens=True) for row in written]


def form_told(name: str, texts: list[str], beginning: str = "") -> str:
    """How many whole lines of all texts keep a form; the beginning itself does not count."""
    forms = [verse_form(text.removeprefix(beginning)) for text in texts]
    forms = [form for form in forms if form.lines]
    lines = sum(form.lines for form in forms)
    kept = sum(form.in_either * form.lines for form in forms)
    one_metre = sum(form.share * form.lines for form in forms)
    told = {
        "form_of": name,
        "beginning": beginning,
        "texts": len(texts),
        "lines": lines,
        "lines_of_five_or_seven": round(kept / max(1, lines), 3),
        "lines_of_their_text_s_metre": round(one_metre / max(1, lines), 3),
        "texts_of_one_metre_throughout": sum(form.share == 1 for form in forms),
        "first": texts[0],
    }
    return json.dumps(told, ensure_ascii=False)


def told(name: str, result: dict[str, Any], seconds: float) -> str:
    kept = ("parameters", "steps", "tokens", "tokens_per_s", "planned", "sources", "validation")
    found = {key: result[key] for key in kept} | {
        key: result[key] for key in ("forgotten_nats",) if key in result
    }
    times = {"seconds": round(seconds), "processor_s": round(processor_s())}
    return json.dumps({"run": name, **times, **_rounded(found)}, ensure_ascii=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=480, help="of 8 blocks of 256 tokens")
    parser.add_argument("--poem-steps", type=int, default=240)
    parser.add_argument("--characters", action="store_true", help="a token a character")
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="mixture-"))
    folder.mkdir(exist_ok=True, parents=True)
    began = time.monotonic()
    places = texts_prepare(folder, characters=asked.characters)
    sizes = {source: MappedShards(place).tokens for source, place in places.items()}
    print(json.dumps({"tokens_of": sizes, "seconds": round(time.monotonic() - began)}), flush=True)
    recipe = {
        "preset": "novel",
        "size": "3m",
        "blocks_per_step": 8,
        "steps": asked.steps,
        "lr": 2e-3,
        "dtype": dtype_faster(),
        "evaluate_every_steps": 120,
        "checkpoint_every_steps": 20,
    }
    blend = {
        "temperature": 2.0,
        "epoch_caps": [4.0] * len(SOURCES),
        # The history of the blend: half of the last third is poems.
        "later_shares": {str(asked.steps * 2 // 3): [0.1, 0.1, 0.1, 0.1, 0.5, 0.1]},
    }
    inputs = {"tokenizer": folder / "tokenizer", **roles(places.values(), "tokens")}
    result = run(folder / "base", inputs, **recipe, **blend)
    base = folder / "base" / "outputs" / "model"
    print(told("mixture", result, time.monotonic() - began), flush=True)
    others = [place for source, place in places.items() if source != POEMS]
    inputs = {"base": base, "tokens": places[POEMS], **roles(others, "replay")}
    more = {"steps": asked.poem_steps, "lr": 1e-3, "replay_share": 0.1}
    result = run(folder / "poet", inputs, **{**recipe, **more})
    poet = folder / "poet" / "outputs" / "model"
    print(told("then poems, a tenth replayed", result, time.monotonic() - began), flush=True)
    print(form_told("real poems", documents_read(POEMS)[:1000]), flush=True)
    for beginning in BEGINNINGS:
        for name, model in (("the base", base), ("the poet", poet)):
            texts = poems_drawn(model, beginning)
            if asked.characters:  # WordPiece sets its tokens apart
                texts = [text.replace(" ", "") for text in texts]
            print(form_told(name, texts, beginning), flush=True)


if __name__ == "__main__":
    main()
