"""A project's prompts in a launch: written down by side, and held-out ones never trained on."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from alignment.methods import METHODS
from alignment.selectors.launches import input_choices
from alignment.services.launches import Launch, run_launch
from annotation.models import Membership, Project, Prompt, Split
from modelhub.errors import ApplicationError
from modelhub.ml.records import PromptRecord, records_read, records_write
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder
from tests import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    project = builders.make_project("Tides")
    for split in Split.values:
        builders.make_prompt(project, f"A question that is {split}?", split=split)
    return project


@pytest.fixture
def manager(project: Project) -> User:
    user = builders.make_member(project, "manager", Membership.Role.MANAGER).user
    user.is_staff = True
    user.save()
    return user


@pytest.fixture
def policy() -> ModelVersion:
    return builders.make_version("smol", role=ModelVersion.Role.BASE)


def launched(method: str, user: User, policy: ModelVersion, **inputs: str) -> Run:
    registers = METHODS[method].registers
    role = "base" if registers else "model"
    launch = Launch(
        method=method,
        settings={"checker": "gsm8k"} if registers else {},
        inputs={role: f"version/{policy.uid}", **inputs},
        model_name="helper" if registers else "",
    )
    return run_launch(launch=launch, requested_by=user)


def questions(run: Run, role: str) -> list[str]:
    folder = artifact_folder(run.inputs.get(role=role).artifact)
    rows = records_read(folder / "prompts.jsonl", PromptRecord)
    return [one.messages[-1]["content"] for one in rows]


def test_ppo_is_launched_on_a_projects_prompts_and_tested_on_its_held_out_ones(
    project: Project, manager: User, policy: ModelVersion
) -> None:
    rows = f"project/{project.uid}"
    inputs = {"prompts": f"{rows}/train", "evaluation_prompts": f"{rows}/held_out"}
    run = launched("ppo", manager, policy, **inputs)
    assert questions(run, "prompts") == ["A question that is train?"]
    assert questions(run, "evaluation_prompts") == ["A question that is held_out?"]
    # A launch has what the project was when it was asked for.
    builders.make_prompt(project, "A later question?")
    assert questions(run, "prompts") == ["A question that is train?"]


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.HELD_OUT])
def test_prompts_that_are_not_for_it_are_answered_but_never_trained_on(
    project: Project, manager: User, policy: ModelVersion, split: str
) -> None:
    with pytest.raises(ApplicationError, match="Prompts: there is no"):
        launched("ppo", manager, policy, prompts=f"project/{project.uid}/{split}")
    sampled = launched("generate", manager, policy, prompts=f"project/{project.uid}/{split}")
    assert questions(sampled, "prompts") == [f"A question that is {split}?"]
    with pytest.raises(ApplicationError, match="1 of the 1 prompts is held out") as refused:
        launched("ppo", manager, policy, prompts=f"run/{sampled.uid}/prompts")
    assert refused.value.extra == {"field": "inputs.prompts"}
    assert not Run.objects.filter(program="ppo").exists()
    again = launched("generate", manager, policy, prompts=f"run/{sampled.uid}/prompts")
    assert again.inputs.get(role="prompts").artifact == sampled.inputs.get(role="prompts").artifact


def test_a_runs_page_names_the_project_and_the_side_of_its_prompts(
    project: Project, manager: User, policy: ModelVersion
) -> None:
    rows = f"project/{project.uid}"
    inputs = {"prompts": f"{rows}/train", "evaluation_prompts": f"{rows}/held_out"}
    run = launched("ppo", manager, policy, **inputs)
    client, stranger = Client(), Client()
    client.force_login(manager)
    stranger.force_login(builders.make_user("stranger", is_staff=True))
    page = reverse("run_detail", args=[run.uid])
    shown = client.get(page).content.decode()
    assert "Tides: its prompts to train on" in shown and "Tides: its held-out prompts" in shown
    shown = stranger.get(page).content.decode()
    assert "another project: its held-out prompts" in shown and "Tides" not in shown
    Prompt.objects.all().delete()  # or questions that no project ever had
    assert "<td>prompts<br>" in client.get(page).content.decode()


def test_what_no_round_samples_answers_to_is_not_among_them(
    project: Project, manager: User, policy: ModelVersion
) -> None:
    Prompt.objects.filter(project=project, split=Split.TRAIN).update(source=Prompt.OF_CORPUS)
    with pytest.raises(ApplicationError, match="no prompts that are train") as refused:
        launched("ppo", manager, policy, prompts=f"project/{project.uid}/train")
    assert refused.value.extra == {"field": "inputs.prompts"}


def test_a_project_is_offered_by_the_sides_it_has_to_those_who_manage_it(
    project: Project, manager: User, charlie: User
) -> None:
    for name, wanted in (("ppo", ["train"]), ("generate", ["train", "validation", "held_out"])):
        prompts = METHODS[name].input("prompts")
        assert prompts is not None
        found = [reference for reference, _ in input_choices(input=prompts, user=manager)]
        assert found == [f"project/{project.uid}/{side}" for side in wanted]
        assert input_choices(input=prompts, user=charlie) == []
    project.prompts.filter(split=Split.TRAIN).delete()
    prompts = METHODS["ppo"].input("prompts")
    assert prompts is not None and input_choices(input=prompts, user=manager) == []


def test_the_form_and_the_api_say_so(project: Project, manager: User, signed_in: object) -> None:
    client: Client = signed_in(manager)  # type: ignore[operator]
    page = client.get(reverse("method_launch", args=["ppo"])).content.decode()
    assert f'<option value="project/{project.uid}/train">Tides: its prompts to train on' in page
    told = client.get("/api/v1/methods/").json()["results"]
    (ppo,) = [one for one in told if one["name"] == "ppo"]
    by_role = {one["role"]: one["of_project"] for one in ppo["inputs"]}
    assert by_role["prompts"] == ["train"]
    assert by_role["evaluation_prompts"] == ["held_out", "validation"]
    checker = ppo["schema"]["properties"]["checker"]
    assert checker["examples"] and "enum" not in checker


def test_prompts_that_no_project_knows_are_held_out_where_an_import_says_so(
    manager: User, policy: ModelVersion, tmp_path: Path
) -> None:
    prompt = PromptRecord(prompt_id="one", messages=[{"role": "user", "content": "Is it so?"}])
    records_write(tmp_path / "prompts.jsonl", [prompt])
    earlier = Run.objects.create(program="generate", config={})
    artifact = artifact_store(folder=tmp_path, kind=Artifact.Kind.PROMPTS)
    earlier.inputs.create(role="prompts", artifact=artifact)
    assert launched("ppo", manager, policy, prompts=f"run/{earlier.uid}/prompts").program == "ppo"
    imported = Run.objects.create(program="import_questions", config={})
    imported.outputs.create(role="evaluation_prompts", artifact=artifact)
    for reference in (f"run/{imported.uid}/evaluation_prompts", f"run/{earlier.uid}/prompts"):
        with pytest.raises(ApplicationError, match="1 of the 1 prompts is held out"):
            launched("ppo", manager, policy, prompts=reference)


def test_what_holds_no_prompts_is_refused_and_named(
    manager: User, policy: ModelVersion, tmp_path: Path
) -> None:
    """What judges read is kept as prompts, too: tasks.jsonl."""
    (tmp_path / "tasks.jsonl").write_text("{}\n")
    judging = Run.objects.create(program="judge", config={})
    artifact = artifact_store(folder=tmp_path, kind=Artifact.Kind.PROMPTS)
    judging.inputs.create(role="tasks", artifact=artifact)
    with pytest.raises(ApplicationError, match=r"Prompts: it holds no prompts\.jsonl") as refused:
        launched("ppo", manager, policy, prompts=f"run/{judging.uid}/tasks")
    assert refused.value.extra == {"field": "inputs.prompts"}
