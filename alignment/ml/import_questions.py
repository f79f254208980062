"""Questions with right answers come in: prompts to train on, prompts held out, and references.

A question's side, train or held-out, is the site's own function of its words (`annotation.splits`),
so that none is trained on here and evaluated on elsewhere; the validation side is held out too. A
question that is there twice with one answer is taken once; with two answers the import is refused,
as it is for an answer that the checker does not count as right for itself.

By hand: `python -m alignment.ml.import_questions RUN_DIR`.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from alignment.ml.checkers import (
    REFERENCES_NAME,
    ReferenceRecord,
    checker_get,
    references_check,
)
from alignment.ml.configs import ImportQuestionsConfig
from annotation.splits import content_hash, group_hash, split_of
from modelhub.ml.configs import RefusedError
from modelhub.ml.pinned import special_kind
from modelhub.ml.records import PromptRecord, RecordError, records_write
from modelhub.ml.rundir import RunDir, program_run

MAX_LINE_CHARACTERS = 1 << 20


def lines_read(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line). Raises RefusedError for a file that cannot be read as text, and
    for a line longer than MAX_LINE_CHARACTERS: little that is packed may unpack to very much."""
    zipped = path.suffix == ".gz"
    try:
        if kind := special_kind(path):
            raise RefusedError(
                f"{path.name} is {kind}: save what it gives in a file, and name that"
            )
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if zipped
            else path.open(encoding="utf-8") as file
        ):
            number = 0
            while line := file.readline(MAX_LINE_CHARACTERS + 1):
                number += 1
                if len(line) > MAX_LINE_CHARACTERS:
                    raise RefusedError(
                        f"{path.name}, line {number}: longer than {MAX_LINE_CHARACTERS} "
                        "characters: is it JSON Lines, an object a line?"
                    )
                yield number, line
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path.name}: wanted text in UTF-8: {error.reason}") from error
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RefusedError(f"{path.name} cannot be read: {why}") from error


def questions_read(path: Path, config: ImportQuestionsConfig) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) of each line. Raises RecordError naming line and field, and
    RefusedError for a file that cannot be read."""
    for number, line in lines_read(path):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise RecordError(path.name, number, "", f"no JSON: {error}") from error
        found = []
        for field in (config.question_field, config.answer_field):
            text = value.get(field) if isinstance(value, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise RecordError(path.name, number, field, "wanted a text")
            found.append(text)
        yield found[0], found[1]


def main(run: RunDir) -> None:
    config = run.config(ImportQuestionsConfig)
    checker = checker_get(config.checker)
    path = Path(config.location)
    prompts: dict[str, list[PromptRecord]] = {"train": [], "held_out": []}
    references: dict[str, ReferenceRecord] = {}
    repeated = 0
    for question, answer in questions_read(path, config):
        messages = [{"role": "user", "content": question}]
        prompt_id = content_hash(messages)[:32]
        known = references.get(prompt_id)
        if known is not None:
            if known.answer != answer:
                raise RefusedError(f"{path.name}: two answers to one question, {question!r:.80}")
            repeated += 1
            continue
        references[prompt_id] = ReferenceRecord(prompt_id=prompt_id, answer=answer)
        split = split_of(group_hash(messages), config.split_shares)
        side = "train" if split == "train" else "held_out"
        prompts[side].append(PromptRecord(prompt_id=prompt_id, messages=messages))
    references_check(references, checker)
    if not prompts["train"]:
        raise RefusedError(f"{path.name}: no question to train on")
    records_write(run.output("references") / REFERENCES_NAME, references.values())
    records_write(run.output("prompts") / "prompts.jsonl", prompts["train"])
    outputs = {"references": "references", "prompts": "prompts"}
    if prompts["held_out"]:
        records_write(run.output("evaluation_prompts") / "prompts.jsonl", prompts["held_out"])
        outputs["evaluation_prompts"] = "prompts"
    counts = {
        "train": len(prompts["train"]),
        "held_out": len(prompts["held_out"]),
        "repeated": repeated,
    }
    print(counts, flush=True)
    run.succeed(outputs=outputs, result=counts)


if __name__ == "__main__":
    program_run(main)
