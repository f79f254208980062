"""The examples of PPO-ptx: what the policy learns beside, and the order in which it does."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment.ml.configs import PpoConfig
from alignment.ml.conversations import Lesson, conversations_read, lessons_make
from alignment.ml.shared_prefix import Group
from annotation.records import DEMONSTRATIONS_NAME, RANKINGS_NAME
from modelhub.ml.configs import RefusedError
from modelhub.ml.corpora.documents import documents_at, documents_count
from modelhub.ml.records import RecordError, lines_read

TEXTS_NAME = "texts.jsonl"
# Of a corpus, in memory in every process, about 45 bytes each: not a gigabyte. More are not held;
# these come round again.
TOKENS_AT_MOST = 20_000_000
_DOCUMENTS_FIRST = 100


def pretraining_load(
    folder: Path, tokenizer: Any, config: PpoConfig, *, max_tokens: int
) -> list[Lesson]:
    """The examples in a folder, each of at most `max_tokens` tokens.

    Of a corpus, documents in an order of the seed's, each cut into pieces of `max_tokens`; of
    texts.jsonl ({"text"}) likewise, in the file's order: all tokens behind a piece's first are
    learnt. Of conversations, those to train on, longer ones left out: the written answers are
    learnt, as in fine-tuning.

    Raises RefusedError if nothing is left or the folder holds nothing of these.
    """
    if (folder / TEXTS_NAME).exists():
        examples = list(_pieces(_texts(folder / TEXTS_NAME), tokenizer, max_tokens))
    elif any(folder.glob("documents-*.parquet")):
        examples, tokens = [], 0
        texts = _documents(folder, seed=config.seed)
        for piece in _pieces(texts, tokenizer, max_tokens):
            examples.append(piece)
            tokens += piece.group.tokens
            if tokens >= TOKENS_AT_MOST:
                print(f"pretraining: {len(examples)} pieces of the corpus are taken", flush=True)
                break
    elif (folder / DEMONSTRATIONS_NAME).exists() or (folder / RANKINGS_NAME).exists():
        given = list(conversations_read(folder, config.split_shares))
        train = [one for one in given if one.split == "train"]
        if len(train) < len(given):
            print(f"pretraining: {len(given) - len(train)} are not for training", flush=True)
        laid = lessons_make(train, tokenizer, max_tokens=max_tokens).lessons if train else []
        # An example is one answer, so that `ptx_per_answer` counts answers.
        examples = [
            Lesson(Group(lesson.group.prompt_T, [answer_T]), [taught_T])
            for lesson in laid
            for answer_T, taught_T in zip(lesson.group.answers, lesson.taught, strict=True)
        ]
    else:
        raise RefusedError(
            f"pretraining: {folder.name} holds no documents-*.parquet, {TEXTS_NAME}, "
            f"{DEMONSTRATIONS_NAME} or {RANKINGS_NAME}: give a corpus or demonstrations"
        )
    if not examples:
        raise RefusedError(
            f"pretraining: no example of at most {max_tokens} tokens to train on: there is nothing "
            "to mix in"
        )
    print(f"pretraining: {len(examples)} examples", flush=True)
    return examples


def _texts(path: Path) -> Iterator[str]:
    for number, value in lines_read(path):
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise RecordError(path.name, number, "text", "wanted a string")
        yield value["text"]


def _documents(folder: Path, *, seed: int) -> Iterator[str]:
    """A corpus's texts in an order of the seed's, so that the first of them stand for all.

    Any of them may lie in any part of the files, so every reading passes over all of them: as many
    again are read as were wanted so far, which makes few readings and holds no more than that.
    """
    count = documents_count(folder)
    order = random.Random(f"{seed}:ptx documents").sample(range(count), count)  # noqa: S311
    start, end = 0, _DOCUMENTS_FIRST
    while start < count:
        for document in documents_at(folder, order[start:end]):
            yield document.text
        start, end = end, 2 * end


def _pieces(texts: Iterator[str], tokenizer: Any, max_tokens: int) -> Iterator[Lesson]:
    for text in texts:
        tokens_T = tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(tokens_T), max_tokens):
            piece_T = tokens_T[start : start + max_tokens]
            if len(piece_T) > 1:
                group = Group(piece_T[:1], [piece_T[1:]])
                yield Lesson(group, [[True] * (len(piece_T) - 1)])


class Pretraining:
    """The examples of PPO-ptx, in an order of their own in every pass over them."""

    def __init__(self, examples: Sequence[Lesson], *, seed: int, taken: int) -> None:
        self._examples, self._seed = examples, seed
        self._epoch, self._order = -1, [0]
        self.taken = taken

    def take(self, count: int) -> list[Lesson]:
        found = []
        for number in range(self.taken, self.taken + count):
            epoch, place = divmod(number, len(self._examples))
            if epoch != self._epoch:
                self._order = random.Random(f"{self._seed}:ptx:{epoch}").sample(  # noqa: S311
                    range(len(self._examples)), len(self._examples)
                )
                self._epoch = epoch
            found.append(self._examples[self._order[place]])
        self.taken += count
        return found
