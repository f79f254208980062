"""A judge's verdicts: both orders, strictly read, counted where they do not count, resumed."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import judge
from alignment.ml.configs import JudgeConfig
from alignment.ml.replies import Asker
from alignment.records import TaskRecord, VerdictRecord
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.records import records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.judging_server import judging_server
from tests.alignment.ml.programs import lines_of, result_of, run_make
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


def task(name, *texts):
    candidates = [
        {"id": f"{name}-{k}", "text": text, "finish_reason": "stop"} for k, text in enumerate(texts)
    ]
    messages = [{"role": "user", "content": f"Say {name}."}]
    return TaskRecord(task=name, prompt_id=name, messages=messages, candidates=candidates)


TASKS = [task("pair", "one", "one two"), task("three", "a b", "a b c", "d e"), task("same", "x")]


def tasks_write(folder, tasks=TASKS):
    folder.mkdir()
    records_write(folder / "tasks.jsonl", tasks)
    return folder


def asked(tmp_path, server, **config):
    """The run directory of a judge at an endpoint."""
    endpoint = {"engine": "openai", "endpoint_url": server.url, "endpoint_model": "words"}
    inputs = {"tasks": tasks_write(tmp_path / "tasks")}
    return run_make(tmp_path / "run", "judge", inputs, {**endpoint, **config})


def verdict(first, second, said):
    return VerdictRecord(task="t", first=first, second=second, verdict=said, reply="", attempts=1)


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("A", "a"),
        (" b.\n", "b"),
        ("**Tie**", "tie"),
        ("It is shorter.\nVerdict: B", "b"),
        ("**Verdict: B**", "b"),
        ("**Verdict:** tie.", "tie"),
        ("Answer A", None),
        ("A is better than B", None),
        ("Verdict: A or B", None),
        ("A\nbut perhaps not", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_strictly(reply, read):
    assert judge.verdict_read(reply) == read


def test_only_verdicts_alike_in_both_orders_count():
    def outcome(forth, back):
        return judge.outcome_of(verdict("x", "y", forth), verdict("y", "x", back))

    assert outcome("a", "b") == ("agreed", "x")
    assert outcome("b", "a") == ("agreed", "y")
    assert outcome("tie", "tie") == ("tied", None)
    assert outcome("a", "a") == outcome("tie", "a") == ("disagreed", None)
    assert outcome("a", "unread") == ("unread", None)
    assert outcome("unread", "too_long") == ("too_long", None)


def test_tiers_go_by_wins_less_losses_of_the_pairs_that_count():
    dropped = ("disagreed", None)
    outcomes = {("x", "y"): ("agreed", "x"), ("x", "z"): dropped, ("y", "z"): ("tied", None)}
    assert judge.tiers_make("xyz", outcomes) == [["x"], ["z"], ["y"]]
    assert judge.tiers_make("xyz", dict.fromkeys(outcomes, dropped)) == []


def test_an_endpoints_verdicts_become_labels(tmp_path):
    with judging_server() as server:
        run = asked(tmp_path, server)
        judge.main(RunDir(run))
        assert sum(server.asked.values()) == 8  # (1 + 3) pairs in both orders
    labels = lines_of(run / "outputs" / "labels" / "labels.jsonl")
    assert [one["tiers"] for one in labels] == [
        [["pair-1"], ["pair-0"]],
        [["three-1"], ["three-0", "three-2"]],
    ]
    told = result_of(run)
    assert (told["tasks"], told["labels"], told["asked"]) == (3, 2, 8)
    assert (told["pairs"]["agreed"], told["pairs"]["tied"], told["pairs"]["disagreed"]) == (3, 1, 0)


def test_a_judge_that_goes_by_place_gives_no_label(tmp_path):
    with judging_server("place") as server:
        run = asked(tmp_path, server)
        judge.main(RunDir(run))
    assert lines_of(run / "outputs" / "labels" / "labels.jsonl") == []
    assert result_of(run)["pairs"]["disagreed"] == 4


def test_what_is_no_verdict_is_asked_again_and_then_counted(tmp_path):
    (tmp_path / "once").mkdir()
    with judging_server("chat") as server:
        run = asked(tmp_path / "once", server, temperatures=[0.0])
        judge.main(RunDir(run))
        assert result_of(run)["pairs"]["unread"] == 4
    (tmp_path / "twice").mkdir()
    with judging_server("chat") as server:
        run = asked(tmp_path / "twice", server, temperatures=[0.0, 0.7])
        judge.main(RunDir(run))
        assert set(server.asked.values()) == {2}
    assert (result_of(run)["labels"], result_of(run)["asked"]) == (2, 16)


def test_started_again_only_what_is_missing_is_asked(tmp_path, monkeypatch):
    with judging_server() as server:
        run = asked(tmp_path, server, chunk_samples=3)
        drawn, draw = [], Asker._draw

        def draw_twice(self, chunk, keys):
            if len(drawn) == 2:
                raise KeyboardInterrupt
            drawn.append(len(chunk))
            return draw(self, chunk, keys)

        with monkeypatch.context() as patch:
            patch.setattr(Asker, "_draw", draw_twice)
            first = RunDir(run)
            with pytest.raises(KeyboardInterrupt):
                judge.main(first)
            first._lock.close()
        judge.main(RunDir(run))
        assert set(server.asked.values()) == {1}
    assert result_of(run)["labels"] == 2


def test_a_models_replies_are_counted_and_what_is_too_long_is_not_asked(tmp_path):
    torch.set_num_threads(1)
    inputs = {
        "model": tiny_model_write(tmp_path / "model"),
        "tasks": tasks_write(
            tmp_path / "tasks", [task("short", "a", "b"), task("long", "a" * 500, "b")]
        ),
    }
    config = {
        "engine": "transformers",
        "dtype": "float32",
        "rubric": "-",
        "max_tokens": 2,
        "temperatures": [0.0],
    }
    run = run_make(tmp_path / "run", "judge", inputs, config)
    judge.main(RunDir(run))
    told = result_of(run)["verdicts"]
    assert (told["unread"], told["too_long"]) == (2, 2)  # a byte is a token, of 512


def test_nobody_to_ask_and_settings_that_no_engine_takes_are_refused(tmp_path):
    run = run_make(
        tmp_path / "run",
        "judge",
        {"tasks": tasks_write(tmp_path / "tasks")},
        {"engine": "transformers"},
    )
    with pytest.raises(RefusedError, match="nobody to ask"):
        judge.main(RunDir(run))
    with pytest.raises(ConfigError, match="rubric"):
        JudgeConfig(rubric=" ")
    with pytest.raises(ConfigError, match="endpoint_url"):
        JudgeConfig(engine="openai")
