"""A judge's ratings: strictly read, asked for again, and a label only where all were given."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import rate
from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.judging_server import judging_server
from tests.alignment.ml.programs import lines_of, result_of, run_make
from tests.alignment.ml.test_judge import task, tasks_write
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml
TASKS = [task("two", "one", "one two three"), task("one", "a b c d e f g h i")]


def asked(folder, server, tasks=TASKS, **config):
    """The run directory of a judge at an endpoint."""
    folder.mkdir(exist_ok=True)
    endpoint = {"engine": "openai", "endpoint_url": server.url, "endpoint_model": "words"}
    inputs = {"tasks": tasks_write(folder / "tasks", tasks)}
    return run_make(folder / "run", "rate", inputs, {**endpoint, **config})


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("5", 5),
        (" 7.\n", 7),
        ("**3**", 3),
        ("It is short.\nRating: 2", 2),
        ("6/7", 6),
        ("**Rating: 5**", 5),
        ("It is short.\n**Rating:** 5", 5),
        ("**Rating**: 5/7.", 5),
        ("Rating: **5.**", 5),
        ("0", None),
        ("8", None),
        ("5 or 6", None),
        ("4.5", None),
        ("five", None),
        ("5\nor so", None),
        ("", None),
    ],
)
def test_a_rating_is_read_strictly(reply, read):
    assert rate.rating_read(reply) == read


def test_an_endpoints_ratings_become_labels(tmp_path):
    with judging_server() as server:
        run = asked(tmp_path, server, TASKS)
        rate.main(RunDir(run))
        assert sum(server.asked.values()) == 3
    assert lines_of(run / "outputs/labels/labels.jsonl") == [
        {"task": "two", "ratings": {"two-0": 1, "two-1": 3}},
        {"task": "one", "ratings": {"one-0": 7}},
    ]
    told = result_of(run)
    assert (told["labels"], told["rated"], told["unread"], told["asked"]) == (2, 3, 0, 3)
    assert told["mean_rating"] == pytest.approx(11 / 3)
    assert [one["answers"] for one in told["ratings"]] == [1, 0, 1, 0, 0, 0, 1]


def test_what_is_no_rating_is_asked_again_and_then_counted(tmp_path):
    with judging_server("chat") as server:
        run = asked(tmp_path / "once", server, TASKS, temperatures=[0.0])
        rate.main(RunDir(run))
        told = result_of(run)
        assert (told["labels"], told["unread"], told["asked"]) == (0, 3, 3)
        assert told["mean_rating"] is None
    with judging_server("chat") as server:
        run = asked(tmp_path / "twice", server, TASKS, temperatures=[0.0, 0.7])
        rate.main(RunDir(run))
        assert set(server.asked.values()) == {2}
    assert (result_of(run)["labels"], result_of(run)["asked"]) == (2, 6)


def test_a_task_of_which_one_answer_was_too_long_has_no_label(tmp_path):
    """A byte is a token, of the model's 512; a random model's replies are no ratings either."""
    torch.set_num_threads(1)
    tasks = [task("half", "a", "a" * 500)]
    inputs = {
        "model": tiny_model_write(tmp_path / "model"),
        "tasks": tasks_write(tmp_path / "tasks", tasks),
    }
    config = {"engine": "transformers", "dtype": "float32", "rubric": "-", "max_tokens": 2}
    run = run_make(tmp_path / "run", "rate", inputs, {**config, "temperatures": [0.0]})
    rate.main(RunDir(run))
    told = result_of(run)
    assert (told["answers"], told["too_long"], told["labels"]) == (2, 1, 0)


def test_a_label_wants_every_answer_rated():
    said = {"task": "two", "finish_reason": "stop", "reply": "", "attempts": 1}

    def rated(candidate, rating):
        return rate.RatedRecord(candidate=candidate, rating=rating, **said)

    whole = list(rate.labels_lay(TASKS[:1], [rated("two-0", 4), rated("two-1", 2)]))
    assert [one.ratings for one in whole] == [{"two-0": 4, "two-1": 2}]
    assert not list(rate.labels_lay(TASKS[:1], [rated("two-0", 4), rated("two-1", None)]))


def test_nothing_to_rate_is_refused(tmp_path):
    with judging_server() as server, pytest.raises(RefusedError, match="no tasks to rate"):
        rate.main(RunDir(asked(tmp_path, server, [])))
