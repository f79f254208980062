"""The stages by datatrove's executors: what they run, what they submit, what they refuse."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="the scale extra is not installed")
pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from modelhub.ml.corpora import clean_corpus
from modelhub.ml.corpora.documents import CorpusError
from modelhub.ml.corpora.many_machines import executors_make, executors_run, main
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.corpora.corpus import corpus_write, evaluation_write, word_list_write
from tests.modelhub.ml.corpora.test_clean_corpus import ITEM
from tests.modelhub.ml.corpora.test_stages import PHRASE, SETTINGS, texts_varied, told
from tests.modelhub.ml.runs import run_write


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("many")
    texts = texts_varied()
    inputs: dict[str, Any] = {
        "corpus": corpus_write(folder / "corpus", texts, shards=4),
        "known_1": corpus_write(folder / "known", [texts[2]]),
        "evaluation_1": evaluation_write(folder / "set", [ITEM, f"Explain: {PHRASE}"]),
        "bad_words_1": word_list_write(folder / "words", ["ill repute", "zounds"]),
    }
    return lambda name: run_write(folder / name, "clean_corpus", SETTINGS, **inputs)


def test_several_processes_clean_as_one_machine_does(make_run: Callable[[str], Path]) -> None:
    one, many = make_run("one"), make_run("many")
    clean_corpus.main(RunDir(one))
    assert main(["local", str(many), "--tasks", "3", "--workers", "2"]) == 0
    assert told(many) == told(one)
    counted = (many / "stages" / "2-examine-of-3" / "stats.json").read_text()
    assert "exact_duplicate" not in counted
    assert '"gopher.words_min"' in counted
    assert '"bad_words"' in counted


def test_a_task_that_fails_ends_it_there_and_names_its_log(
    make_run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("fails")
    executors = executors_make(run, "local", tasks=2, workers=1)
    monkeypatch.setattr(executors[1], "run", lambda: None)
    with pytest.raises(RuntimeError, match=r"2 of 2 tasks have failed, .*2-examine-of-2/logs/task"):
        executors_run(executors)
    assert not (run / "stages" / "files" / "compared").exists()


def test_what_one_machine_refuses_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = corpus_write(tmp_path / "corpus", ["too short"])
    run = run_write(tmp_path / "run", "clean_corpus", {}, corpus=corpus)
    assert main(["local", str(run), "--tasks", "1"]) == 2
    assert "refused: nothing is left of 1 documents" in capsys.readouterr().err
    assert main(["local", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is no run directory: it has no config.json" in capsys.readouterr().err
    with pytest.raises(CorpusError, match="tokenise has no stages"):
        executors_make(run_write(tmp_path / "other", "tokenise", {}), "local", tasks=1)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that keeps every script and numbers the jobs; returns the folder."""
    kept = tmp_path / "submitted"
    (kept / "bin").mkdir(parents=True)
    program = kept / "bin" / "sbatch"
    program.write_text(
        "#!/bin/sh\n"
        f"number=$(ls {kept}/*.script 2>/dev/null | wc -l)\n"
        f'for last; do :; done; cp "$last" {kept}/$(printf %02d $number).script\n'
        f'echo "$@" > {kept}/$(printf %02d $number).arguments\n'
        'echo "Submitted batch job $((100 + number))"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return kept


SLURM = ["--tasks", "5", "--workers", "2", "--partition", "cpu", "--time", "1:00:00"]


def test_slurm_gets_an_array_a_stage_each_behind_the_one_before(
    make_run: Callable[[str], Path], sbatch: Path
) -> None:
    run = make_run("slurm")
    assert main(["slurm", str(run), *SLURM, "--decide-memory-gb", "30"]) == 0
    jobs = {}
    for path in sorted(sbatch.glob("*.script")):
        script = path.read_text()
        if "launch_pickled_pipeline" in script:  # the others sum up what tasks have counted
            (name,) = (line for line in script.splitlines() if "--job-name=" in line)
            jobs[name.rpartition("-")[2]] = script, path.with_suffix(".arguments").read_text()
    assert list(jobs) == ["prepare", "examine", "compare", "decide", "write", "finish"]
    assert "--array=0-0%1\n" in jobs["prepare"][0]
    assert "--dependency" not in jobs["prepare"][1]
    assert "--array=0-4%2\n" in jobs["examine"][0]
    assert "--dependency=afterok:100" in jobs["examine"][1]
    assert "--dependency=afterok:102" in jobs["compare"][1]
    assert "--mem-per-cpu=30G\n" in jobs["decide"][0]
    assert "--mem-per-cpu=4G\n" in jobs["write"][0]
    assert f"export PYTHONPATH={Path.cwd()}" in jobs["write"][0]


def test_slurms_scripts_can_be_looked_at_first(
    make_run: Callable[[str], Path], sbatch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slurm", str(make_run("show")), *SLURM, "--show"]) == 0
    assert not list(sbatch.glob("*.script"))
    shown = capsys.readouterr().out
    assert shown.count("#!/bin/bash") == 6
    assert "#SBATCH --partition=cpu" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["slurm", "run"], "--partition"),
        (["ray", "run", "--partition", "cpu"], "--partition"),
        (["local", "run", "--show"], "--show"),
        (["local", "run", "--tasks", "0"], "--tasks"),
    ],
)
def test_arguments_that_fit_no_engine_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err.splitlines()[-1]
