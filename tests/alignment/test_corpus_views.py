"""The page of a corpus's rules: what a cleaning is held against is chosen there."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from alignment.services.launches import Launch, run_launch
from annotation.models import Membership, Project, Split
from modelhub.errors import ApplicationError
from modelhub.ml.corpora.contamination import items_read
from modelhub.models import RuleSet, Run, RunInput, RunOutput
from modelhub.storage import artifact_folder
from tests import builders
from tests.modelhub.corpora import make_corpus

pytestmark = pytest.mark.django_db

TEXT = "The river had been low since April, and the people walked along the bed of it."


@pytest.fixture
def staff(eve: User, project: Project, signed_in: Any) -> Client:
    builders.make_prompt(project, "Which river was low?", split=Split.HELD_OUT)
    builders.make_prompt(project, "Train on this.", split=Split.TRAIN)
    Membership.objects.create(project=project, user=eve, role=Membership.Role.MANAGER)
    return signed_in(eve)


@pytest.fixture
def corpus(tmp_path: Path) -> RunOutput:
    return make_corpus(tmp_path, [TEXT])


def test_held_out_prompts_and_corpora_are_offered_and_given_to_the_cleaning(
    staff: Client, corpus: RunOutput, project: Project, tmp_path: Path
) -> None:
    other = make_corpus(tmp_path, [TEXT.upper()])
    page = staff.get(reverse("corpus_rules", args=[corpus.run.uid])).content.decode()
    held_out, had = f"project/{project.uid}/held_out", f"run/{other.run.uid}/corpus"
    assert f'name="against-held_out" value="{held_out}"' in page
    # As one to evaluate on, as one already had, as a list of words.
    assert page.count(f'value="{had}"') == 3
    assert f'value="run/{corpus.run.uid}/corpus"' not in page

    asked = {"name": "strict", "against-held_out": [held_out], "against-known": [had]}
    response = staff.post(reverse("corpus_clean", args=[corpus.run.uid]), asked)
    run = Run.objects.get(program="clean_corpus")
    assert response["Location"] == reverse("run_detail", args=[run.uid])
    given = {one.role: one.artifact for one in run.inputs.all()}
    assert given.keys() == {"corpus", "held_out_1", "known_1"}
    assert (given["corpus"], given["known_1"]) == (corpus.artifact, other.artifact)
    folder = artifact_folder(given["held_out_1"])
    texts = [one.text for one in items_read("held_out_1", folder)]
    assert any("Which river was low?" in text for text in texts)
    assert not any("Train on this." in text for text in texts)


def made_again(corpus: RunOutput, program: str, **config: Any) -> RunOutput:
    """The same artifact, as another run made it."""
    run = Run.objects.create(
        program=program, config=config, status=Run.Status.SUCCEEDED, result={}, label="again"
    )
    return RunOutput.objects.create(run=run, role="corpus", artifact=corpus.artifact)


def boxes(page: str, corpus: RunOutput) -> list[str]:
    """The names of the boxes that offer a corpus."""
    offered = f'value="run/{corpus.run.uid}/corpus"'
    tags = [tag for tag in page.split("<input") if offered in tag]
    return [name for tag in tags for name in re.findall(r'name="against-(\w+)"', tag)]


def test_what_was_imported_as_a_list_of_words_is_taken_for_nothing_else(
    staff: Client, corpus: RunOutput, tmp_path: Path
) -> None:
    words = make_corpus(tmp_path, ["darn\nheck"], is_word_list=True)
    rules = reverse("corpus_rules", args=[corpus.run.uid])
    reference = f"run/{words.run.uid}/corpus"
    assert boxes(staff.get(rules).content.decode(), words) == ["bad_words"]
    for role in ("known", "evaluation"):
        reply = clean(staff, corpus, **{role: [reference]})
        assert (reply.status_code, reply.json()["extra"]) == (400, {"field": f"inputs.{role}"})
        assert "imported as a list of bad words" in reply.json()["message"]
    assert clean(staff, words).status_code == 400
    assert not Run.objects.filter(program="clean_corpus").exists()
    assert clean(staff, corpus, bad_words=[reference]).status_code == 202

    # The tick was a mistake: imported again without it, the same is a corpus like others.
    again = made_again(words, "import_corpus", is_word_list=False)
    page = staff.get(rules).content.decode()
    assert boxes(page, again) == boxes(page, words) == ["evaluation", "known", "bad_words"]
    assert clean(staff, corpus, known=[reference]).status_code == 202


def test_what_a_cleaning_took_for_bad_words_stays_offered_for_all_else(
    staff: Client, corpus: RunOutput, tmp_path: Path
) -> None:
    used = make_corpus(tmp_path, ["drat"])
    cleaning = Run.objects.create(program="clean_corpus", config={})
    RunInput.objects.create(run=cleaning, role="bad_words_1", artifact=used.artifact)
    page = staff.get(reverse("corpus_rules", args=[corpus.run.uid])).content.decode()
    assert boxes(page, used) == ["evaluation", "known", "bad_words"]


def test_a_corpus_is_not_held_against_itself_by_another_name(
    staff: Client, corpus: RunOutput
) -> None:
    again = made_again(corpus, "clean_corpus")
    RunInput.objects.create(run=again.run, role="known_1", artifact=corpus.artifact)
    page = staff.get(reverse("corpus_rules", args=[corpus.run.uid])).content.decode()
    assert boxes(page, again) == boxes(page, corpus) == []
    for role, name in (("known", "corpus"), ("evaluation", "known_1"), ("bad_words", "corpus")):
        reply = clean(staff, corpus, **{role: [f"run/{again.run.uid}/{name}"]})
        assert (reply.status_code, reply.json()["extra"]) == (400, {"field": f"inputs.{role}"})
        assert "not held against itself" in reply.json()["message"]
    assert not RuleSet.objects.exists()
    inputs = {"corpus": f"run/{corpus.run.uid}/corpus", "known": [f"run/{again.run.uid}/corpus"]}
    launch = Launch(method="clean_corpus", settings={}, inputs=inputs)
    with pytest.raises(ApplicationError, match="not held against itself"):
        run_launch(launch=launch, requested_by=User.objects.get(username="eve"))


def test_what_is_ticked_stays_so_when_something_is_refused(
    staff: Client, corpus: RunOutput, project: Project
) -> None:
    box = f'name="against-held_out" value="project/{project.uid}/held_out"'
    asked = {"name": "no name!", "against-held_out": [f"project/{project.uid}/held_out"]}
    where = reverse("corpus_clean", args=[corpus.run.uid])
    response = staff.post(where, asked)
    assert response.status_code == 422
    (tag,) = [tag for tag in response.content.decode().split("<input") if box in tag]
    assert " checked" in tag
    shown = staff.post(where, asked | {"show": "yes"})["Location"]
    (tag,) = [tag for tag in staff.get(shown).content.decode().split("<input") if box in tag]
    assert " checked" in tag


def clean(client: Client, cleaned: RunOutput, **against: Any) -> HttpResponse:
    return client.post(
        reverse("api_corpus_clean", args=[cleaned.run.uid]),
        {"name": "strict", "against": against},
        "application/json",
    )


def test_the_api_holds_a_cleaning_against_the_same(
    staff: Client, corpus: RunOutput, project: Project, tmp_path: Path
) -> None:
    other = make_corpus(tmp_path, [TEXT.upper()])
    had = f"run/{other.run.uid}/corpus"
    reply = clean(staff, corpus, held_out=[f"project/{project.uid}/held_out"], bad_words=[had])
    assert reply.status_code == 202
    run = Run.objects.get(program="clean_corpus")
    assert reply.json() == {"run": run.uid, "rule_set": "strict@1"}
    given = {one.role: one.artifact for one in run.inputs.all()}
    assert given.keys() == {"corpus", "held_out_1", "bad_words_1"}
    assert (given["corpus"], given["bad_words_1"]) == (corpus.artifact, other.artifact)
    texts = [one.text for one in items_read("held_out_1", artifact_folder(given["held_out_1"]))]
    assert any("Which river was low?" in text for text in texts)


def projects_without_prompts() -> tuple[Project, Project]:
    """One with held-out prompts that eve does not manage, and one that she does, without any."""
    foreign, empty = builders.make_project("Foreign"), builders.make_project("Empty")
    builders.make_prompt(foreign, "Whose is it?", split=Split.HELD_OUT)
    eve = User.objects.get(username="eve")
    Membership.objects.create(project=empty, user=eve, role=Membership.Role.MANAGER)
    return foreign, empty


def test_the_api_refuses_what_the_page_refuses_and_keeps_nothing(
    staff: Client, corpus: RunOutput
) -> None:
    foreign, empty = projects_without_prompts()
    own = f"run/{corpus.run.uid}/corpus"
    for role, reference, said in (
        ("held_out", f"project/{foreign.uid}/held_out", "there is no"),
        ("held_out", f"project/{empty.uid}/held_out", "no held-out prompts"),
        ("evaluation", f"project/{empty.uid}/held_out", "there is no"),
        ("known", own, "not held against itself"),
    ):
        reply = clean(staff, corpus, **{role: [reference]})
        assert (reply.status_code, reply.json()["extra"]) == (400, {"field": f"inputs.{role}"})
        assert said in reply.json()["message"]
    assert clean(staff, corpus, corpus=[own]).status_code == 400  # a field that is not
    assert clean(staff, corpus, held_out="all").status_code == 400
    assert not RuleSet.objects.exists()
    assert not Run.objects.filter(program="clean_corpus").exists()


def test_what_cannot_be_held_against_is_refused_and_nothing_is_kept(
    staff: Client, corpus: RunOutput
) -> None:
    foreign, empty = projects_without_prompts()
    where = reverse("corpus_clean", args=[corpus.run.uid])
    for project, said in ((foreign, "not one of the available"), (empty, "no held-out prompts")):
        asked = {"name": "strict", "against-held_out": [f"project/{project.uid}/held_out"]}
        response = staff.post(where, asked)
        assert response.status_code == 422
        assert said in response.content.decode()
    assert not RuleSet.objects.exists()
    assert not Run.objects.filter(program="clean_corpus").exists()
