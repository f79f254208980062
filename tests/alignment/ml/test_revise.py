"""Critique and revision: what is asked, what counts as a revision, and what is learnt from it."""

import dataclasses
from collections import Counter

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import revise
from alignment.ml.configs import ReviseConfig
from alignment.ml.replies import Asker, Told
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.judging_server import judging_server
from tests.alignment.ml.programs import lines_of, result_of, run_make
from tests.alignment.ml.test_judge import task, tasks_write

pytestmark = pytest.mark.ml
TASKS = [
    task("rude", "Go away"),
    task("kind", "please"),
    task("odd", "stuck"),
    task("cut", "long"),
    task("quiet", "mute"),
]
ONE = "Be polite."


def asked(folder, server, tasks=TASKS, **config):
    """The run directory of a model that revises, at an endpoint."""
    folder.mkdir(exist_ok=True)
    endpoint = {"engine": "openai", "endpoint_url": server.url, "endpoint_model": "polite"}
    inputs = {"tasks": tasks_write(folder / "tasks", tasks)}
    return run_make(folder / "run", "revise", inputs, {"principles": ONE, **endpoint, **config})


def test_a_fault_is_mended_and_nothing_else_becomes_an_edit(tmp_path):
    with judging_server() as server:
        run = asked(tmp_path, server)
        revise.main(RunDir(run))
    assert lines_of(run / "outputs/labels/labels.jsonl") == [
        {
            "task": "rude",
            "original": "rude-0",
            "text": "Go away, please",
            "reason": "By the principle: Be polite.\nIt is not polite.",
        }
    ]
    outcomes = {
        one["task"]: one["outcome"] for one in lines_of(run / "outputs/labels/revisions.jsonl")
    }
    assert outcomes == {
        "rude": "revised",
        "kind": "no_fault",
        "odd": "unchanged",
        "cut": "cut_off",
        "quiet": "unread",
    }
    told = result_of(run)
    assert (told["tasks"], told["labels"]) == (5, 1)
    # One critique each, a second of the quiet one; three revisions, a second of the cut one.
    assert told["asked"] == 6 + 4
    assert told["by_principle"][0]["revised"] == 1


def test_a_revision_is_a_demonstration_of_its_prompt(tmp_path):
    with judging_server() as server:
        run = asked(tmp_path, server, TASKS[:1])
        revise.main(RunDir(run))
    (row,) = lines_of(run / "outputs/demonstrations/demonstrations.jsonl")
    assert (row["text"], row["prompt_id"], row["score"]) == ("Go away, please", "rude", None)
    assert row["messages"] == TASKS[0].messages


@pytest.mark.parametrize("split", ["validation", "held_out"])
def test_what_is_held_out_is_an_edit_and_no_demonstration(tmp_path, split):
    held_out = dataclasses.replace(TASKS[0], split=split)
    with judging_server() as server:
        run = asked(tmp_path, server, [held_out])
        revise.main(RunDir(run))
    assert len(lines_of(run / "outputs/labels/labels.jsonl")) == 1
    assert not (run / "outputs/demonstrations").exists()


def test_without_a_revision_there_is_no_demonstration(tmp_path):
    with judging_server() as server:
        run = asked(tmp_path, server, TASKS[1:])
        revise.main(RunDir(run))
    assert result_of(run)["labels"] == 0
    assert not (run / "outputs/demonstrations").exists()


def test_the_critique_is_what_the_revision_is_asked_by(tmp_path):
    with judging_server() as server:
        revise.main(RunDir(asked(tmp_path, server, TASKS[:1])))
        critique, revision = server.asked
    assert ONE in critique and "Go away" in critique and "Person: Say rude." in critique
    assert "It is not polite." in revision and "Go away" in revision


def test_every_step_goes_on_from_the_last_text_by_a_principle_of_its_own(tmp_path):
    principles = "One.\n\n Two. \nThree."
    config = ReviseConfig(principles=principles)
    assert config.constitution == ["One.", "Two.", "Three."]
    drawn = [revise.principle_draw(TASKS[0], step, config) for step in range(6)]
    assert set(drawn[:3]) == set(config.constitution) and drawn[3:] == drawn[:3]
    firsts = Counter(revise.principle_draw(task(f"{n}"), 0, config) for n in range(90))
    assert min(firsts.values()) > 15
    with judging_server() as server:
        run = asked(tmp_path, server, TASKS[:1], revisions=2, principles=principles)
        revise.main(RunDir(run))
    first, second = lines_of(run / "outputs/labels/revisions.jsonl")
    assert (first["outcome"], second["outcome"]) == ("revised", "no_fault")
    assert [first["principle"], second["principle"]] == drawn[:2]


def test_of_several_answers_one_is_taken_up_and_always_the_same():
    tasks = [task(f"t{n}", "a", "b", "c") for n in range(60)]
    taken = [revise.draft_take(one, seed=0).text for one in tasks]
    assert taken == [revise.draft_take(one, seed=0).text for one in tasks]
    assert min(Counter(taken).values()) > 8
    assert taken != [revise.draft_take(one, seed=1).text for one in tasks]


def test_a_text_that_the_tables_do_not_hold_is_no_revision():
    def outcome(text):
        told = Told(text=text, finish_reason="stop", attempts=1)
        return revise.revision_outcome(told, "before")

    assert outcome("after") == "revised"
    assert outcome(" before\n") == "unchanged"
    assert outcome("x" * 50_001) == outcome("a\x00b") == "too_large"


def test_started_again_only_what_is_missing_is_asked(tmp_path, monkeypatch):
    tasks = [task(f"t{n}", "Go away") for n in range(6)]
    with judging_server() as server:
        run = asked(tmp_path, server, tasks, chunk_samples=2)
        drawn, draw = [], Asker._draw

        def draw_some(self, chunk, keys):
            if len(drawn) == 4:  # three chunks of critiques, one of revisions
                raise KeyboardInterrupt
            drawn.append(len(chunk))
            return draw(self, chunk, keys)

        with monkeypatch.context() as patch:
            patch.setattr(Asker, "_draw", draw_some)
            first = RunDir(run)
            with pytest.raises(KeyboardInterrupt):
                revise.main(first)
            first._lock.close()
        revise.main(RunDir(run))
        assert sum(server.asked.values()) == 12
    assert result_of(run)["labels"] == 6


def test_nothing_to_revise_and_a_constitution_without_words_are_refused(tmp_path):
    with judging_server() as server, pytest.raises(RefusedError, match="no answers to revise"):
        revise.main(RunDir(asked(tmp_path, server, [])))
    with pytest.raises(ConfigError, match=r"revise\.principles"):
        ReviseConfig(principles=" \n")
    with pytest.raises(ConfigError, match=r"revise\.revisions: wanted 1 to 10"):
        ReviseConfig(revisions=0)
