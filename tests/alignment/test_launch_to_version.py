"""From judgements to a version through the pages alone: freeze, launch, run, register.

What people rated or wrote, and what a product's users thought, each trains a model by the real
program.
"""

import json
import re

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from alignment.launch_forms import INPUT, SETTING
from annotation.models import Membership, PreferenceDataset, Submission, Task, TaskForm
from annotation.services.assignments import assignment_next
from annotation.services.batches import prompts_store
from annotation.services.demonstrations import demonstration_submit
from annotation.services.ratings import rating_submit
from annotation.services.tokens import project_token_create
from modelhub.models import Artifact, ModelVersion, Run, RunInput
from modelhub.runner import run_execute
from modelhub.selectors.lineage import lineage_verify
from modelhub.services.artifacts import artifact_store
from modelhub.services.versions import model_get_or_create, model_version_register
from tests import builders

pytestmark = [pytest.mark.ml, pytest.mark.slow, pytest.mark.django_db]

FAST = {"epochs": 4, "lr": 1e-3, "bootstrap_samples": 100}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cache.clear()


@pytest.fixture
def manager(eve, project, signed_in) -> Client:
    """Staff, who may launch, and a manager of the project, who may freeze."""
    builders.make_member(project, "eve", Membership.Role.MANAGER)
    return signed_in(eve)


def registered(folder, role):
    from modelhub.ml.model_directory import model_directory_check

    facts = model_directory_check(folder)
    return model_version_register(
        model=model_get_or_create(name=folder.name),
        role=role,
        artifact=artifact_store(folder=folder, kind=Artifact.Kind.MODEL),
        parent=None,
        run=None,
        facts={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
        },
    )


@pytest.fixture
def base(tmp_path):
    from tests.tiny_model import tiny_model_write

    (tmp_path / "tiny").mkdir()
    return registered(tiny_model_write(tmp_path / "tiny"), ModelVersion.Role.BASE)


def answers_of(number):
    """Two answers of which the one in a's is the better."""
    return ("a" * 5 + f" {number}", "b" * 5 + f" {number}")


def frozen(client, project, kind, origin=""):
    page = reverse("project_datasets", args=[project.uid])
    response = client.post(page, {"kind": kind, "origin": origin})
    assert response.status_code == 302, response.content.decode()
    return PreferenceDataset.objects.latest("pk")


def launched(client, method, inputs, **settings):
    """The form as a browser sends it, with inputs chosen and settings changed; then the run."""
    page = reverse("method_launch", args=[method])
    form = client.get(page).context["form"]
    shown = {field.html_name: field.value() for field in form}
    shown |= {INPUT + role: reference for role, reference in inputs.items()}
    shown |= {SETTING + name: value for name, value in settings.items()}
    sent = {
        name: "on" if value is True else value
        for name, value in shown.items()
        if value not in (None, False)
    }
    response = client.post(page, {**sent, "model_name": "made"})
    assert response.status_code == 302, re.findall('class="error"[^<]*<', response.content.decode())
    run = Run.objects.get(program=method)
    run_execute(run_id=run.pk, owner="here")
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
    return run


def sent_by_product(project, bodies):
    _, secret = project_token_create(project=project, name="Kitchen")
    product = Client(enforce_csrf_checks=True)
    for body in bodies:
        response = product.post(
            "/api/v1/feedback",
            json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {secret}"},
        )
        assert response.status_code == 201, response.content.decode()


def version_of(run, base, role):
    """The version that a run has made, checked to lead back to where it came from."""
    version = ModelVersion.objects.get(run=run)
    assert (str(version), version.role, version.parent) == ("made v1", role, base)
    assert lineage_verify(version=version) == []
    return version


def test_a_policy_is_trained_on_frozen_ratings(manager, project, base):
    for number in range(10):
        builders.make_task(project, Task.Kind.RATING, answers_of(number))
    ann = builders.make_member(project, "ann")
    while (assignment := assignment_next(membership=ann)) is not None:
        rated = {
            one.candidate.uid: {"overall": 7 if one.candidate.text[0] == "a" else 1, "flags": []}
            for one in assignment.task.task_candidates.select_related("candidate")
        }
        rating_submit(assignment=assignment, ratings=rated)
    dataset = frozen(manager, project, "rating")
    inputs = {"base": f"version/{base.uid}", "ratings": f"dataset/{dataset.uid}"}
    run = launched(manager, "kto", inputs, **FAST)
    assert (run.result["desirable"], run.result["undesirable"]) == (10, 10)
    assert run.result["loss_last_steps"] < run.result["loss_first"]
    version_of(run, base, "policy")
    assert dataset.counts["used"] == 10


def test_a_reward_model_is_trained_on_what_a_products_users_chose(manager, project, base):
    bodies = []
    for number in range(20):
        better, worse = answers_of(number)
        answers = [{"text": worse}, {"text": better}]
        bodies.append({"prompt": f"Say {number}", "answers": answers, "chosen": 1})
    sent_by_product(project, bodies)
    builders.make_task(project, Task.Kind.PAIR)  # nobody has judged it
    dataset = frozen(manager, project, "pair", Membership.Source.PRODUCT)
    assert dataset.counts["used"] == 20
    inputs = {"base": f"version/{base.uid}", "rankings": f"dataset/{dataset.uid}"}
    run = launched(manager, "reward", inputs, **FAST)
    assert set(Submission.objects.values_list("source", flat=True)) == {"product"}
    version_of(run, base, "reward")


def test_a_policy_is_trained_on_a_products_votes(manager, project, base):
    bodies = []
    for number in range(20):
        liked, disliked = answers_of(number)
        answers = [{"text": liked, "vote": "up"}, {"text": disliked, "vote": "down"}]
        bodies.append({"prompt": f"Say {number}", "answers": answers})
    sent_by_product(project, bodies)
    dataset = frozen(manager, project, "rating", Membership.Source.PRODUCT)
    inputs = {"base": f"version/{base.uid}", "ratings": f"dataset/{dataset.uid}"}
    run = launched(manager, "kto", inputs, **FAST)
    assert run.result["desirable"] == run.result["undesirable"] == run.result["prompts"]
    version_of(run, base, "policy")


def test_a_policy_learns_beside_its_reward_what_people_wrote(manager, project, base, tmp_path):
    from modelhub.storage import artifact_folder
    from tests.alignment.ml.programs import tiny_reward_write

    folder = tiny_reward_write(tmp_path / "judge", artifact_folder(base.artifact), head=0.3)
    reward = registered(folder, ModelVersion.Role.REWARD)
    ann = builders.make_member(project, "ann")
    TaskForm.objects.create(project=project, kind="demonstration", settings={"turns": 2})
    prompts = [builders.make_prompt(project) for _ in range(3)]
    for prompt in prompts:
        builders.make_task(project, Task.Kind.DEMONSTRATION, (), prompt=prompt)
    while (assignment := assignment_next(membership=ann)) is not None:
        more = [{"user": "And then?", "text": "So."}]
        demonstration_submit(assignment=assignment, text="Yes.", turns=more)
    dataset = frozen(manager, project, "demonstration")
    asked = builders.make_batch(project).run
    RunInput.objects.create(run=asked, role="prompts", artifact=prompts_store(prompts=prompts))
    inputs = {
        "base": f"version/{base.uid}",
        "reward": f"version/{reward.uid}",
        "prompts": f"run/{asked.uid}/prompts",
        "pretraining": f"dataset/{dataset.uid}",
    }
    run = launched(
        manager,
        "ppo",
        inputs,
        engine="transformers",
        prompts_per_step=3,
        samples=2,
        max_tokens=4,
        minibatches=1,
        ppo_epochs=1,
        ptx_coef=1.0,
        rise_factor=0,
        bootstrap_samples=100,
    )
    assert run.metrics.filter(name="loss/ptx_avg").exists()
    version_of(run, base, "policy")
