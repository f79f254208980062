"""Cleaning a corpus, or bringing one in, as stages of many tasks that meet in files alone.

    prepare    one task     verify the inputs, hash the evaluation items, make the plan
    examine    any number   each shard's rules, hashes, signatures and shared words
    compare    any number   each share of the hashes, each band: which texts repeat which
    decide     one task     what becomes of each document
    write      any number   each shard's kept documents, personal data replaced
    finish     one task     the report and the result

and of an import: prepare, measure (any number, a stretch of the files each), finish.

A run directory is what one machine's program has (rundir.py), and what comes of it is the same: the
same documents in the same order, the same reasons, the same report and figures; the shards alone
are cut elsewhere. A task is (stage, rank), of any number of tasks, on any machine that sees the
directory and the inputs at the same place. A task that was killed is run again: what lies there
whole is not made anew. Of two attempts at one task, the first that is done stays, and the other is
held against it. datatrove_step.py has the stages as steps of its pipelines.

`decide` holds some forty bytes a document; `compare` as much of each that is in its share; the
others hold one shard's.
"""

import json
from collections.abc import Callable
from pathlib import Path

from modelhub.ml.corpora import clean_stages, import_stages
from modelhub.ml.corpora.documents import CorpusError
from modelhub.ml.corpora.stage_files import Counts
from modelhub.ml.corpora.workers import pandas_leave_out
from modelhub.ml.rundir import RESULT_NAME

# Of each program its stages in order.
STAGES: dict[str, dict[str, Callable[[Path, int, int], Counts]]] = {
    "import_corpus": {
        "prepare": import_stages.prepare,
        "measure": import_stages.measure,
        "finish": import_stages.finish,
    },
    "clean_corpus": {
        "prepare": clean_stages.prepare,
        "examine": clean_stages.examine,
        "compare": clean_stages.compare,
        "decide": clean_stages.decide,
        "write": clean_stages.write,
        "finish": clean_stages.finish,
    },
}
OF_MANY_TASKS = ("measure", "examine", "compare", "write")


def stage_run(run: Path, stage: str, rank: int, tasks: int) -> Counts:
    """One task of a stage. Returns what it counted, by name; nothing of a run that is done.

    tasks: of each stage of many; the others have rank 0. Raises what the program of one machine
    does.
    """
    pandas_leave_out()
    if (run / RESULT_NAME).exists():
        return {}
    return STAGES[program_of(run)][stage](run, rank, tasks)


def program_of(run: Path) -> str:
    """The program of a run directory. Raises CorpusError for a folder that is none, and for a
    program that has no stages."""
    try:
        program = str(json.loads((run / "config.json").read_text())["program"])
    except FileNotFoundError as error:
        raise CorpusError(
            f"{run} is no run directory: it has no config.json. `manage.py run_export RUN {run}` "
            "writes one of a run of the site; by hand it is "
            '{"program": "clean_corpus", "config": {…}, "inputs": {…}} (docs/runs.md)'
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{run / 'config.json'} names no program: {error}") from error
    if program not in STAGES:
        raise CorpusError(f"{program} has no stages: {' and '.join(STAGES)} have")
    return program
