"""Stages of many tasks make of a corpus what the program of one machine makes of it."""

import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

import pyarrow.parquet as pq

from modelhub.ml.corpora import (
    clean_corpus,
    clean_stages,
    cleaning,
    documents,
    import_corpus,
    stages,
)
from modelhub.ml.corpora.documents import CorpusError, rows_read
from modelhub.ml.corpora.readers import SourceError
from modelhub.ml.corpora.stage_files import made_whole
from modelhub.ml.manifest import IntegrityError, manifest_verify
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.corpora.corpus import corpus_write, evaluation_write, word_list_write
from tests.modelhub.ml.corpora.test_clean_corpus import CHINESE, ITEM, OTHER, STORY, TWIN
from tests.modelhub.ml.runs import run_write

SETTINGS: dict[str, Any] = {
    "workers": 1,
    "languages": ["en", "zh"],
    "drop_c4_lines": True,
    "contamination_documents_max": 2,
}
PHRASE = "Permission is hereby granted free of charge to any person who asks for it today."


def texts_varied() -> list[str]:
    """Texts for every step, those that repeat one another far apart."""
    draw = random.Random(5)
    words = sorted({word.strip(".,").lower() for word in f"{STORY} {OTHER}".split()})

    def prose() -> str:
        return " ".join(f"The {' '.join(draw.sample(words, 9))}." for _ in range(10))

    unlike = [prose() for _ in range(30)]
    french = "Les enfants jouent dans le jardin pendant que leur mère prépare le dîner. "
    odd = [
        "The people of the valley walked along the bed of the river with baskets.",
        french * 4,
        "buy now " * 60,
        STORY.replace("smooth", "{smooth}"),
        f"{prose()} Write to ann@example.org or call 13812345678.",
        f"Menu\nHome | About\n{prose()}\n{prose()} Call +1 212 555 0123.",
        STORY,
        OTHER,
        CHINESE,
        f"{unlike[3]} Zounds! A mason of ill repute sang.",
        *(f"{PHRASE} {prose()}" for _ in range(3)),
    ]
    repeats = [
        STORY.upper(),
        TWIN,
        CHINESE[:-3],
        unlike[2],
        unlike[5].replace(" ", "  "),
        f"{unlike[7]} {unlike[8][:60]}.",
    ]
    return [*unlike[:15], *odd, *unlike[15:], *repeats]


def stages_run(run: Path, tasks: int, *, again: bool = False) -> None:
    """Every task of every stage, the last first; `again`: each is delivered twice."""
    for stage in stages.STAGES[stages.program_of(run)]:
        ranks = range(tasks) if stage in stages.OF_MANY_TASKS else range(1)
        for rank in reversed(ranks):
            for _ in range(1 + again):
                stages.stage_run(run, stage, rank, tasks)


def told(run: Path) -> dict[str, Any]:
    """All that a cleaning says, and the documents with what was measured of them."""
    described = json.loads((run / "result.json").read_text())
    for output in described["outputs"].values():
        manifest_verify(run / output["path"], output["sha256"])
    report = run / "outputs" / "report"
    return {
        "result": described["result"],
        "documents": list(rows_read(run / "outputs" / "corpus")),
        "removed": pq.read_table(report / "removed.parquet").to_pylist(),
        "contamination": (report / "contamination.jsonl").read_text(),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes run directories over one corpus of four shards, a known one and an evaluation set."""
    folder = tmp_path_factory.mktemp("stages")
    texts = texts_varied()
    inputs = {
        "corpus": corpus_write(folder / "corpus", texts, shards=4),
        "known_1": corpus_write(folder / "known", [texts[2], "Nobody knows this one."]),
        "evaluation_1": evaluation_write(folder / "set", [ITEM, f"Explain: {PHRASE}"]),
        "bad_words_1": word_list_write(folder / "words", ["# ours", "ill repute", "zounds"]),
    }

    def make(name: str, **settings: Any) -> Path:
        return run_write(folder / name, "clean_corpus", SETTINGS | settings, **inputs)

    return make


@pytest.fixture(scope="module")
def one_machine(world: Callable[..., Path]) -> dict[str, Any]:
    run = world("one")
    clean_corpus.main(RunDir(run))
    return told(run)


def test_one_machine_drops_by_every_step_here(one_machine: dict[str, Any]) -> None:
    """Or the comparisons below would compare nothing."""
    dropped = {row["step"] for row in one_machine["result"]["funnel"] if row["dropped"]}
    assert dropped >= {
        "language",
        "gopher.words_min",
        "gopher.stop_words",
        "c4.curly_brackets",
        "bad_words",
        "exact_duplicate",
        "near_duplicate",
        "contamination",
    }
    assert one_machine["result"]["scrubbed"] == {"email": 1, "phone": 1, "chinese_mobile": 1}
    assert one_machine["result"]["documents"] > 30


@pytest.mark.parametrize(("tasks", "again"), [(1, False), (3, True)])
def test_stages_say_what_one_machine_says(
    world: Callable[..., Path], one_machine: dict[str, Any], tasks: int, again: bool
) -> None:
    run = world(f"stages{tasks}")
    stages_run(run, tasks, again=again)
    found = told(run)
    for name, value in one_machine.items():
        assert found[name] == value, name
    assert not (run / "stages" / "files").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"near_duplicates": False, "contamination_drop": False},
        {"exact_duplicates": False, "near_similarity_min": 0.5, "scrub_pii": False},
    ],
    ids=["without near", "without exact"],
)
def test_other_settings_say_the_same_too(
    world: Callable[..., Path], changed: dict[str, Any]
) -> None:
    one, many = (world(f"{side} {sorted(changed)}", **changed) for side in ("one", "many"))
    clean_corpus.main(RunDir(one))
    stages_run(many, 2)
    assert told(many) == told(one)


def test_hashes_compared_in_shares_are_those_of_one(
    world: Callable[..., Path], one_machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_stages, "SHARE_DOCUMENTS", 9)
    run = world("shares")
    stages_run(run, 4)
    assert told(run) == one_machine


def test_what_a_killed_task_left_is_made_anew(
    world: Callable[..., Path], one_machine: dict[str, Any]
) -> None:
    """One that died among its shards: the half of them stays, the files of the other go."""
    run = world("killed")
    for stage in ("prepare", "examine", "compare", "decide", "write"):
        stages.stage_run(run, stage, 0, 1)
    files = run / "stages" / "files"
    half = sorted((files / "written").glob("0*"))[1]
    half.rename(half.with_name(f".{half.name}-of-a-killed-attempt"))
    again = sorted((files / "examined").glob("0*"))[-1]
    shutil.rmtree(again)
    stages.stage_run(run, "prepare", 0, 1)
    assert (files / "decided").exists()  # prepared once, hours of other tasks' work stay
    for stage in ("examine", "compare", "decide", "write", "finish"):
        stages.stage_run(run, stage, 0, 1)
    assert told(run) == one_machine


def test_an_attempt_that_dies_beside_another_spoils_nothing(
    world: Callable[..., Path], one_machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two machines at one part one is killed among its documents, while the other writes."""
    run = world("two attempts")
    for stage in ("prepare", "examine", "compare", "decide"):
        stages.stage_run(run, stage, 0, 1)
    monkeypatch.setattr(documents, "GROUP_DOCUMENTS", 2)
    real, begun = cleaning.kept_write, []

    def beside(rows: Any, *more: Any, **settings: Any) -> Iterator[int]:
        begun.append(1)
        if len(begun) == 2:
            yield from real(itertools.islice(rows, 3), *more, **settings)
            raise KeyboardInterrupt
        yield from real(rows, *more, **settings)
        if len(begun) == 1:
            with pytest.raises(KeyboardInterrupt):
                stages.stage_run(run, "write", 0, 1)

    monkeypatch.setattr(cleaning, "kept_write", beside)
    stages.stage_run(run, "write", 0, 1)
    stages.stage_run(run, "finish", 0, 1)
    assert told(run) == one_machine


def test_of_two_attempts_the_first_stays_and_one_that_differs_is_told(tmp_path: Path) -> None:
    final = tmp_path / "stages" / "files" / "written" / "00003"
    final.parents[1].mkdir(parents=True)

    def made(text: str) -> None:
        with made_whole(final) as folder:
            (folder / "documents.txt").write_text(text)

    made("first")
    made("first")
    with pytest.raises(CorpusError, match=r"written/00003 was made twice, and documents\.txt .*"):
        made("second")
    assert (final / "documents.txt").read_text() == "first"
    assert [one.name for one in final.parent.iterdir()] == ["00003"]


def test_the_corpus_keeps_what_its_stages_left_and_by_which_code(
    world: Callable[..., Path],
) -> None:
    origins = []
    for tasks in (1, 4):
        run = world(f"origin{tasks}")
        stages_run(run, tasks)
        manifest = json.loads((run / "outputs" / "corpus" / "manifest.json").read_text())
        origins.append(manifest["origin"])
    assert origins[0] == origins[1]
    assert origins[0]["stages"].keys() == {"examine", "compare", "decide", "write"}
    assert {"modelhub.ml.corpora.clean_stages", "modelhub.ml.corpora.stage_files"} <= origins[0][
        "sources"
    ].keys()


def test_a_shard_that_changed_after_its_task_is_refused(world: Callable[..., Path]) -> None:
    run = world("changed")
    for stage in ("prepare", "examine", "compare", "decide", "write"):
        stages.stage_run(run, stage, 0, 1)
    shard = next((run / "stages" / "files" / "written").glob("*/signals-*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=f"output corpus: {shard.name} has changed since"):
        stages.stage_run(run, "finish", 0, 1)
    assert not (run / "result.json").exists()
    (run / "outputs" / "corpus" / shard.name).write_bytes(whole)
    stages.stage_run(run, "finish", 0, 1)
    assert (run / "result.json").exists()


def test_nothing_left_is_refused_with_the_funnel(tmp_path: Path) -> None:
    corpus = corpus_write(tmp_path / "corpus", ["too short", "so is this"], shards=2)
    run = run_write(tmp_path / "run", "clean_corpus", {}, corpus=corpus)
    with pytest.raises(CorpusError, match=r"nothing is left of 2 documents: .*gopher\.words_min"):
        stages_run(run, 2)
    assert not (run / "result.json").exists()


def test_a_program_without_stages_is_refused(tmp_path: Path) -> None:
    run = run_write(tmp_path / "run", "tokenise", {})
    with pytest.raises(CorpusError, match="tokenise has no stages: import_corpus and clean_corpus"):
        stages.stage_run(run, "prepare", 0, 1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "run is no run directory: it has no config.json. `manage.py run_export RUN "),
        ("{", r"config\.json names no program"),
        ("[]", r"config\.json names no program"),
    ],
)
def test_a_folder_that_is_no_run_directory_is_named(
    tmp_path: Path, config: str | None, said: str
) -> None:
    (tmp_path / "run").mkdir()
    if config is not None:
        (tmp_path / "run" / "config.json").write_text(config)
    with pytest.raises(CorpusError, match=said):
        stages.program_of(tmp_path / "run")


def test_an_import_by_many_is_that_of_one_machine(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number, text in enumerate([STORY, "", CHINESE, OTHER, TWIN]):
        (texts / f"{number}.txt").write_text(text)
    settings = {"locations": [str(texts)], "source": "test", "workers": 1}
    one, many = (run_write(tmp_path / name, "import_corpus", settings) for name in ("one", "many"))
    import_corpus.main(RunDir(one))
    stages_run(many, 3, again=True)
    results = [json.loads((run / "result.json").read_text())["result"] for run in (one, many)]
    assert results[0] == results[1]
    rows = [list(rows_read(run / "outputs" / "corpus")) for run in (one, many)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4


def test_settings_that_change_between_two_stages_are_refused(tmp_path: Path) -> None:
    corpus = corpus_write(tmp_path / "corpus", ["too short", "so is this"])
    run = run_write(tmp_path / "run", "clean_corpus", {}, corpus=corpus)
    with pytest.raises(CorpusError, match="nothing is left"):
        stages_run(run, 1)
    changed = json.loads((run / "config.json").read_text())
    changed["config"]["families"] = []
    (run / "config.json").write_text(json.dumps(changed))
    with pytest.raises(CorpusError, match=r"config\.json has changed .* remove run/stages to"):
        stages.stage_run(run, "finish", 0, 1)
    shutil.rmtree(run / "stages")
    stages_run(run, 1)
    assert (run / "result.json").exists()


def test_files_that_come_while_an_import_runs_are_refused(tmp_path: Path) -> None:
    """Or each task would cut the stretches elsewhere: documents twice, or lost."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(f"Text {number}.")
    settings = {"locations": [str(texts)], "source": "test"}
    run = run_write(tmp_path / "run", "import_corpus", settings)
    stages.stage_run(run, "prepare", 0, 2)
    stages.stage_run(run, "measure", 0, 2)
    (texts / "0a.txt").write_text("Another.")
    with pytest.raises(SourceError, match=r"other files .* \(3 then, 4 now\)"):
        stages.stage_run(run, "measure", 1, 2)


def test_an_import_by_many_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "empty.txt").write_text("")
    settings = {"locations": [str(tmp_path / "texts")], "source": "test"}
    run = run_write(tmp_path / "run", "import_corpus", settings)
    with pytest.raises(SourceError, match="holds no document"):
        stages_run(run, 2)
