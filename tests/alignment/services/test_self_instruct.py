"""What a model proposes becomes a prompt only where a person accepts it."""

import pytest
from django.urls import reverse

from alignment.records import ProposalRecord
from alignment.services.launches import Launch, run_launch
from alignment.services.self_instruct import self_instruct_finish
from annotation.models import Membership, Prompt, Proposal, Split
from annotation.services.proposals import proposal_decide
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.records import PromptRecord, records_read, records_write
from modelhub.models import Artifact, RunOutput
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder
from tests.builders import make_member, make_project, make_prompt, make_user

pytestmark = pytest.mark.django_db
TEXTS = ["Name a river of Africa.", "讲一个关于月亮的故事。", "What is rust made of?"]


@pytest.fixture
def project():
    project = make_project()
    make_prompt(project, "How do tides work?")
    make_prompt(project, "A question held out.", split=Split.HELD_OUT)
    return project


@pytest.fixture
def manager(project):
    return make_member(project, "manager", Membership.Role.MANAGER).user


def launched(project, manager):
    endpoint = {"engine": "openai", "endpoint_url": "http://127.0.0.1:9/v1", "endpoint_model": "m"}
    inputs = {"seeds": f"project/{project.uid}/prompts"}
    launch = Launch(method="self_instruct", settings=endpoint, inputs=inputs)
    return run_launch(launch=launch, requested_by=manager)


def finish(run, folder, texts=TEXTS):
    folder.mkdir(exist_ok=True)
    records_write(folder / "proposals.jsonl", (ProposalRecord(text=one, round=0) for one in texts))
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.EVALUATION)
    RunOutput.objects.create(run=run, role="proposals", artifact=artifact)
    self_instruct_finish(run=run)


def test_seeds_are_the_prompts_to_train_on_alone(project, manager):
    run = launched(project, manager)
    folder = artifact_folder(run.inputs.get(role="seeds").artifact)
    (seed,) = records_read(folder / "prompts.jsonl", PromptRecord)
    assert seed.messages[0]["content"] == "How do tides work?"
    # What people are asked of a corpus's documents is nothing to write more of.
    project.prompts.update(source=Prompt.OF_CORPUS)
    with pytest.raises(ApplicationError, match="no prompt to train on"):
        launched(project, manager)
    with pytest.raises(ApplicationError, match="no prompt to train on"):
        empty = make_project("Empty")
        make_member(empty, "manager", Membership.Role.MANAGER)
        launched(empty, manager)


def test_proposals_wait_and_are_not_proposed_twice(project, manager, tmp_path):
    finish(launched(project, manager), tmp_path / "one")
    assert list(project.proposals.values_list("text", "state")) == [(t, "waiting") for t in TEXTS]
    assert project.prompts.count() == 2
    proposal_decide(proposal=project.proposals.first(), accept=False, decided_by=manager)
    finish(launched(project, manager), tmp_path / "two", [*TEXTS, "Who built the first clock?"])
    assert project.proposals.count() == 4


def test_an_accepted_proposal_is_a_prompt_and_a_decision_stands(project, manager, tmp_path):
    run = launched(project, manager)
    finish(run, tmp_path / "one")
    first, second, _ = project.proposals.all()
    for _ in range(2):
        proposal_decide(proposal=first, accept=True, decided_by=manager)
    prompt = Prompt.objects.get(source=f"Self-Instruct: run {run.uid}")
    assert prompt.messages == [{"role": "user", "content": TEXTS[0]}]
    with pytest.raises(ConflictError):
        proposal_decide(proposal=first, accept=False, decided_by=manager)
    rejected = proposal_decide(proposal=second, accept=False, decided_by=manager)
    assert (rejected.state, rejected.decided_by) == (Proposal.State.REJECTED, manager)
    assert project.prompts.count() == 3


def test_the_page_decides_one_by_one(project, manager, tmp_path, client):
    finish(launched(project, manager), tmp_path / "one")
    page = reverse("project_proposals", args=[project.uid])
    client.force_login(manager)
    assert TEXTS[0] in client.get(page).content.decode()
    first, second, _ = project.proposals.all()
    client.post(page, {"proposal": first.uid, "decision": "accept"})
    reply = client.post(page, {"proposal": second.uid, "decision": "reject"}, follow=True)
    text = reply.content.decode()
    assert TEXTS[2] in text
    assert "1 waiting, 1 accepted, 1 rejected" in text
    reply = client.post(page, {"proposal": first.uid, "decision": "reject"}, follow=True)
    assert "decided this proposal the other way" in reply.content.decode()
    client.force_login(make_member(project, "ann").user)
    assert client.get(page).status_code == 404
    client.force_login(make_user("stranger"))
    assert client.post(page, {"proposal": first.uid, "decision": "accept"}).status_code == 404
