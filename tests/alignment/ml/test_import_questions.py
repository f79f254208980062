"""Questions with right answers come in: sides, repeats, and what is refused."""

import gzip
import json
import os
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from alignment.ml.checkers import references_load
from alignment.ml.import_questions import main
from annotation.splits import group_hash, split_of
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.records import PromptRecord, RecordError, records_read
from modelhub.ml.rundir import RunDir
from modelhub.models import Run
from tests.alignment.ml.programs import result_of, run_make

DATA = Path(os.environ.get("RONDO_SHARED_DATA", "../shared/data"))


def questions_write(path, rows):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps({"question": a, "answer": b}) + "\n" for a, b in rows)
    return path


def imported(tmp_path, path, **config):
    run = run_make(tmp_path / "run", "import_questions", {}, {"location": str(path), **config})
    main(RunDir(run))
    return run


def prompts_of(run, role):
    return list(records_read(run / "outputs" / role / "prompts.jsonl", PromptRecord))


def test_questions_are_on_their_own_side_and_have_their_answers(tmp_path):
    rows = [(f"What is {n} and 1?", f"It is so.\n#### {n + 1}") for n in range(40)]
    run = imported(tmp_path, questions_write(tmp_path / "q.jsonl.gz", [*rows, rows[3]]))
    train, held_out = prompts_of(run, "prompts"), prompts_of(run, "evaluation_prompts")
    assert result_of(run) == {"train": len(train), "held_out": len(held_out), "repeated": 1}
    assert len(train) + len(held_out) == 40 and held_out
    for prompt in train:
        assert split_of(group_hash(prompt.messages)) == "train"
    for prompt in held_out:
        assert split_of(group_hash(prompt.messages)) != "train"
    ids = [one.prompt_id for one in (*train, *held_out)]
    references = references_load(run / "outputs" / "references" / "references.jsonl", ids)
    answers = {one.messages[0]["content"]: references[one.prompt_id].answer for one in train}
    assert answers.items() <= dict(rows).items()


def test_a_sites_own_shares_decide_the_sides(tmp_path):
    path = questions_write(tmp_path / "q.gz", [(f"What is {n}?", str(n)) for n in range(40)])
    shares = (0.4, 0.3, 0.3)
    run = imported(tmp_path, path, checker="exact", split_shares=list(shares))
    sides = {True: "prompts", False: "evaluation_prompts"}
    for is_train, role in sides.items():
        for one in prompts_of(run, role):
            assert (split_of(group_hash(one.messages), shares) == "train") == is_train
    assert len(prompts_of(run, "prompts")) < 25
    with pytest.raises(ConfigError, match="split_shares: wanted three shares that sum to 1"):
        imported(tmp_path / "no", path, split_shares=[0.5, 0.6, 0.2])


def test_two_answers_to_a_question_and_answers_without_a_number_are_refused(tmp_path):
    path = questions_write(tmp_path / "two.gz", [("a?", "#### 1"), ("a?", "#### 2")])
    with pytest.raises(RefusedError, match="two answers to one question, 'a\\?'"):
        imported(tmp_path / "a", path)
    path = questions_write(tmp_path / "none.gz", [("a?", "I know not")])
    with pytest.raises(RefusedError, match="no number in the reference"):
        imported(tmp_path / "b", path)


def test_a_line_that_is_none_is_named(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a?", "answer": "1"}\n{"question": "b?"}\n')
    with pytest.raises(RecordError, match=r"q\.jsonl.*2.*answer"):
        imported(tmp_path / "a", path)
    path.write_text("no\n")
    with pytest.raises(RecordError, match="no JSON"):
        imported(tmp_path / "b", path)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder of shared data")
def test_gsm8k_comes_in_whole(tmp_path):
    result = result_of(imported(tmp_path, DATA / "gsm8k_train.jsonl.gz"))
    assert result["train"] + result["held_out"] + result["repeated"] == 7473
    assert 0.7 < result["train"] / 7473 < 0.8


@pytest.mark.django_db
def test_the_command_queues_a_run(tmp_path, capsys):
    path = questions_write(tmp_path / "q.gz", [("a?", "1")])
    call_command("import_questions", str(path), "--checker", "exact")
    run = Run.objects.get()
    assert run.uid in capsys.readouterr().out
    assert run.config["location"] == str(path) and run.config["checker"] == "exact"
    with pytest.raises(CommandError, match="There is no file"):
        call_command("import_questions", str(tmp_path / "none"))


@pytest.mark.django_db
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.gz")
    with pytest.raises(RefusedError, match=r"pipe\.gz is a pipe: save what it gives in a file"):
        imported(tmp_path, tmp_path / "pipe.gz")
    with pytest.raises(CommandError, match=r"pipe\.gz is no plain file"):
        call_command("import_questions", str(tmp_path / "pipe.gz"))


def test_a_line_longer_than_any_question_is_refused_before_it_is_read_whole(tmp_path):
    path = questions_write(tmp_path / "q.jsonl.gz", [("a?", "1"), ("b?", " " * (1 << 20) + "1")])
    wanted = r"q\.jsonl\.gz, line 2: longer than 1048576 characters: is it JSON Lines"
    with pytest.raises(RefusedError, match=wanted):
        imported(tmp_path, path, checker="exact")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nowhere.jsonl", None, "nowhere.jsonl cannot be read: No such file"),
        ("plain.jsonl.gz", b'{"question": "a?"}', "plain.jsonl.gz cannot be read: Not a gzipped"),
        ("half.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "half.jsonl.gz cannot be read"),
        ("latin.jsonl", b'{"question": "\xe9?"}', "latin.jsonl: wanted text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedError, match=reason):
        imported(tmp_path, tmp_path / name)
