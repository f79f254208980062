"""From prompts to a run, and from its answers to tasks."""

import pytest

from annotation import tasks
from annotation.models import Candidate, CandidateBatch, Project, Prompt, Task
from annotation.selectors import batch_progress
from annotation.services.batches import candidate_batch_ingest, candidate_batch_request
from modelhub.errors import ApplicationError
from modelhub.ml.configs import GenerateConfig
from modelhub.ml.records import PromptRecord, records_read
from modelhub.models import Run
from modelhub.storage import artifact_folder
from tests.annotation.judged import answer, make_answered_batch, request_batch, run_succeeds
from tests.builders import make_project, make_prompt, make_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def prompts(project: Project) -> list[Prompt]:
    return [make_prompt(project, f"Question {n}?") for n in range(3)]


def test_a_request_queues_a_run_over_the_prompts(project: Project, prompts: list[Prompt]) -> None:
    version = make_version()
    batch = request_batch(project, prompts, version=version, overlap=2, priority=4)
    run = batch.run
    assert (run.program, run.status) == ("generate", Run.Status.QUEUED)
    inputs = {one.role: one.artifact for one in run.inputs.all()}
    assert inputs["model"] == version.artifact
    records = list(records_read(artifact_folder(inputs["prompts"]) / "prompts.jsonl", PromptRecord))
    assert [one.prompt_id for one in records] == sorted(prompt.uid for prompt in prompts)
    assert {one.prompt_id: one.messages for one in records} == {
        prompt.uid: prompt.messages for prompt in prompts
    }
    assert (batch.overlap, batch.priority, batch.ingested_at) == (2, 4, None)


def test_an_endpoint_needs_no_model_files(project: Project, prompts: list[Prompt]) -> None:
    batch = candidate_batch_request(
        project=project,
        version=make_version(),
        prompts=prompts,
        config=GenerateConfig(
            engine="openai", endpoint_url="http://127.0.0.1:9/v1", endpoint_model="m"
        ),
        purpose=CandidateBatch.Purpose.IMPROVING,
    )
    assert [one.role for one in batch.run.inputs.all()] == ["prompts"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompts": []}, "prompts"),
        ({"purpose": "fun"}, "purpose"),
        ({"overlap": 51}, "overlap"),
        ({"overlap": -1}, "overlap"),
    ],
)
def test_a_request_that_does_not_fit_makes_nothing(
    project: Project, prompts: list[Prompt], change: dict, field: str
) -> None:
    asked = {
        "project": project,
        "version": make_version(),
        "prompts": prompts,
        "config": GenerateConfig(),
        "purpose": "ranking",
    }
    with pytest.raises(ApplicationError) as refused:
        candidate_batch_request(**asked | change)
    assert refused.value.extra == {"field": field}
    assert not Run.objects.exists()


def test_a_prompt_of_another_project_is_refused(project: Project, prompts: list[Prompt]) -> None:
    foreign = make_prompt(make_project("Other"))
    with pytest.raises(ApplicationError, match=foreign.uid):
        request_batch(project, [*prompts, foreign])
    assert not Run.objects.exists()


def test_answers_become_candidates_and_tasks(project: Project, prompts: list[Prompt]) -> None:
    batch = request_batch(project, prompts, samples=3, overlap=2, priority=7)
    run_succeeds(batch, [answer(p, i) for i in range(3) for p in prompts])
    assert candidate_batch_ingest(batch=batch) == 9
    batch.refresh_from_db()
    assert batch.ingested_at is not None
    candidate = Candidate.objects.get(prompt=prompts[1], index=2)
    assert candidate.text == "Answer 2 to Question 1?"
    assert candidate.version == batch.version
    assert candidate.decoding == {
        "engine": "transformers",
        "seed": 2,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 64,
    }
    assert (candidate.token_count, candidate.finish_reason) == (7, "stop")
    assert candidate.mean_logprob == -1.5
    assert Task.objects.count() == 3
    task = Task.objects.get(prompt=prompts[0])
    assert (task.overlap, task.slots_free, task.priority) == (2, 2, 7)
    assert [one.candidate.index for one in task.task_candidates.all()] == [0, 1, 2]


def test_taking_in_twice_takes_in_once(project: Project) -> None:
    batch = make_answered_batch(project)
    assert candidate_batch_ingest(batch=batch) == 0
    assert Candidate.objects.count() == 9
    assert Task.objects.count() == 3


def test_without_overlap_there_are_no_tasks(project: Project) -> None:
    batch = make_answered_batch(project, overlap=0)
    assert Candidate.objects.filter(batch=batch).count() == 9
    assert not Task.objects.exists()
    assert batch_progress(batch=batch).prompts_without_task == 0


def test_identical_answers_are_shown_once_and_one_answer_alone_is_no_task(
    project: Project, prompts: list[Prompt]
) -> None:
    batch = request_batch(project, prompts, samples=3)
    texts = [["same", "other", " same\n"], ["same", "same", "same"], ["a", "b", "c"]]
    run_succeeds(
        batch,
        [answer(p, i, texts[n][i]) for n, p in enumerate(prompts) for i in range(3)],
    )
    assert candidate_batch_ingest(batch=batch) == 9
    shown = {
        task.prompt: [one.candidate.text for one in task.task_candidates.all()]
        for task in Task.objects.all()
    }
    assert shown == {prompts[0]: ["same", "other"], prompts[2]: ["a", "b", "c"]}
    progress = batch_progress(batch=batch)
    assert (progress.prompts, progress.tasks, progress.prompts_without_task) == (3, 2, 1)
    assert (progress.candidates, progress.slots, progress.slots_free) == (9, 2, 2)
    assert not progress.is_complete


def wrong_answers(prompts: list[Prompt], case: str):
    right = [answer(p, i) for p in prompts for i in range(3)]
    return {
        "one is missing": right[:-1],
        "one comes twice": [*right, right[0]],
        "an index is beyond": [*right, answer(prompts[0], 3)],
        "a prompt was not asked": [*right, answer(make_prompt(make_project("Other")), 0)],
        "there are none": [],
    }[case]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("one is missing", "2 of 3 answers"),
        ("one comes twice", "index"),
        ("an index is beyond", "index"),
        ("a prompt was not asked", "not asked"),
        ("there are none", "0 of 3 answers"),
    ],
)
def test_answers_that_are_not_what_was_asked_change_nothing(
    project: Project, prompts: list[Prompt], case: str, words: str
) -> None:
    batch = request_batch(project, prompts)
    run_succeeds(batch, wrong_answers(prompts, case))
    with pytest.raises(ApplicationError, match=words):
        candidate_batch_ingest(batch=batch)
    batch.refresh_from_db()
    assert batch.ingested_at is None
    assert not Candidate.objects.exists()


def test_changed_files_are_refused_by_name(project: Project, prompts: list[Prompt]) -> None:
    batch = request_batch(project, prompts)
    artifact = run_succeeds(batch, [answer(p, i) for p in prompts for i in range(3)])
    path = artifact_folder(artifact) / "candidates.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Answer 1", b"Answer 7"))
    with pytest.raises(ApplicationError, match=r"candidates\.jsonl has changed"):
        candidate_batch_ingest(batch=batch)
    assert not Candidate.objects.exists()


def test_a_run_that_has_not_succeeded_has_no_answers(
    project: Project, prompts: list[Prompt]
) -> None:
    batch = request_batch(project, prompts)
    with pytest.raises(ApplicationError, match="queued"):
        candidate_batch_ingest(batch=batch)


def test_a_nul_that_a_model_wrote_does_not_stop_the_batch(
    project: Project, prompts: list[Prompt]
) -> None:
    batch = request_batch(project, prompts[:1], samples=1, overlap=0)
    run_succeeds(batch, [answer(prompts[0], 0, "a\x00b")])
    assert candidate_batch_ingest(batch=batch) == 1
    assert Candidate.objects.get().text == "a\ufffdb"


def test_the_scheduler_takes_in_what_it_can_though_one_batch_is_refused(
    project: Project, prompts: list[Prompt]
) -> None:
    broken = request_batch(project, prompts)
    run_succeeds(broken, [])
    sound = request_batch(project, prompts)
    run_succeeds(sound, [answer(p, i) for p in prompts for i in range(3)])
    waiting = request_batch(project, prompts)
    tasks.ingest_batches()
    tasks.ingest_batches()
    for batch, done in ((broken, False), (sound, True), (waiting, False)):
        batch.refresh_from_db()
        assert (batch.ingested_at is not None) is done
    assert Candidate.objects.count() == 9
