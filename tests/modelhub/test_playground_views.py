"""The playground's pages: who may, what is refused, and a real trial down to its tokens."""

import json
from pathlib import Path

import pytest

from modelhub import storage
from modelhub.ml.trials import TRIAL_NAME
from modelhub.models import ModelVersion, Run
from modelhub.playground_forms import WAYS, PlaygroundForm, playground_initial
from modelhub.runner import run_execute
from modelhub.selectors import playground as trials
from modelhub.services.artifacts import artifact_store
from modelhub.services.versions import model_get_or_create, model_version_register
from tests import builders

FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 90_000,
    "dtype": "float32",
    "context_tokens": 512,
}
pytestmark = pytest.mark.django_db


def form_values(*versions: ModelVersion, **changed: object) -> dict[str, object]:
    values = {
        "layout": "chat",
        "prompt": "One two",
        "few_shot": "assistant",
        "versions": [one.uid for one in versions],
        "max_tokens": 6,
        "seed": 3,
        "use_greedy": "on",
        "use_top_p": "on",
        "top_p_top_p": "0.8",
    }
    return {**values, **changed}


def test_only_staff_see_it(signed_in, alice, eve) -> None:
    assert signed_in(alice).get("/hub/playground/").status_code == 404
    assert signed_in(alice).post("/hub/playground/", {}).status_code == 404
    page = signed_in(eve).get("/hub/playground/")
    assert page.status_code == 200
    assert "No model to ask" in page.content.decode()


def test_what_only_continues_texts_is_first_talked_to_by_examples(signed_in, eve) -> None:
    talks, base = (builders.make_version(name) for name in ("talks", "base"))
    ModelVersion.objects.filter(pk=talks.pk).update(chat_template="{{ messages }}")
    client = signed_in(eve)
    for asked, layout in ([base], "few_shot"), ([talks], "chat"), ([talks, base], "chat"):
        page = client.get("/hub/playground/", {"version": [one.uid for one in asked]})
        assert page.context["form"]["layout"].value() == layout


def test_a_trial_keeps_what_was_chosen_and_the_form_begins_with_it(signed_in, eve) -> None:
    one, two = builders.make_version("one"), builders.make_version("two", role="base")
    client = signed_in(eve)
    reply = client.post("/hub/playground/", form_values(one, two))
    run = Run.objects.get()
    assert reply.url == f"/hub/playground/{run.uid}/"
    assert run.config["strategies"] == [
        {"kind": "greedy"},
        {"kind": "sample", "top_p": 0.8, "temperature": 1.0},
    ]
    assert run.config["models"] == ["one v1", "two v1"]
    roles = {given.role: given.artifact for given in run.inputs.all()}
    assert roles == {"model_0": one.artifact, "model_1": two.artifact}
    page = client.get(reply.url)
    form = page.context["form"]
    assert form["use_top_p"].value() is True
    assert form["top_p_top_p"].value() == 0.8
    assert not form["use_beam"].value()
    assert form["versions"].value() == [one.uid, two.uid]
    assert "0 of 4 answers" in page.content.decode()


def test_an_adapter_is_asked_on_its_base(signed_in, eve) -> None:
    base = builders.make_version("base", role="base")
    adapter = builders.make_version("tuned", role="adapter")
    ModelVersion.objects.filter(pk=adapter.pk).update(parent=base)
    signed_in(eve).post("/hub/playground/", form_values(adapter))
    roles = {given.role: given.artifact for given in Run.objects.get().inputs.all()}
    assert roles == {"model_0": adapter.artifact, "model_0_base": base.artifact}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": ""}, "This field is required"),
        ({"use_greedy": "", "use_top_p": ""}, "Choose a way to decode"),
        ({"top_p_top_p": "1.5"}, "less than or equal to 1"),
        ({"max_tokens": "100000"}, "less than or equal to 512"),
        ({"versions": []}, "This field is required"),
        ({"versions": ["nobody"]}, "not one of the available choices"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_the_form(signed_in, eve, change, said) -> None:
    version = builders.make_version()
    reply = signed_in(eve).post("/hub/playground/", form_values(version, **change))
    assert reply.status_code == 422
    assert said in reply.content.decode()
    assert not Run.objects.exists()


def test_a_reward_model_is_not_offered() -> None:
    builders.make_version("reward", role="reward")
    assert not trials.versions_that_write().exists()


def test_every_way_of_the_form_is_a_strategy_and_is_found_again() -> None:
    version = builders.make_version()
    given = form_values(version, **{f"use_{way.name}": "on" for way in WAYS})
    given.pop("top_p_top_p")
    form = PlaygroundForm(given, versions=[version])
    assert form.is_valid(), form.errors
    assert len(form.config.decodings) == len(WAYS)
    initial = playground_initial(config=form.config, versions=[version])
    assert all(initial[f"use_{way.name}"] for way in WAYS)


def test_a_trial_is_followed_from_its_directory_before_it_has_a_result(signed_in, eve) -> None:
    client = signed_in(eve)
    url = client.post("/hub/playground/", form_values(builders.make_version())).url
    run = Run.objects.get()
    token = {"text": " <b>", "p": 0.02, "q": 0.05, "others": [[" x", 0.5, 0.9]], "is_over": False}
    cell = {"model": 0, "strategy": 1, "text": " <b>", "tokens": [token], "finish_reason": ""}
    cell |= {"first_token_s": 0.1, "seconds": 0.2, "tokens_per_s": 5.0}
    told = {"models": [{}], "cells": [cell]}
    (storage.run_folder_make(run) / TRIAL_NAME).write_text(json.dumps(told))
    htmx = {"HX-Request": "true"}
    page = client.get(url, headers=htmx)
    text = page.content.decode()
    assert " &lt;b&gt;" in text and 'data-level="5"' in text and "writing" in text
    seen = text.partition("?seen=")[2][:16]
    assert client.get(f"{url}?seen={seen}", headers=htmx).status_code == 204
    assert client.get("/hub/playground/nothing/").status_code == 404


@pytest.mark.ml
@pytest.mark.django_db(transaction=True)
def test_a_real_trial_shows_every_token(signed_in, eve, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.tiny_model import tiny_model_write

    artifact = artifact_store(folder=tiny_model_write(tmp_path / "tiny"), kind="model")
    version = model_version_register(
        model=model_get_or_create(name="tiny"),
        role="base",
        artifact=artifact,
        parent=None,
        run=None,
        facts=FACTS,
    )
    client = signed_in(eve)
    reply = client.post("/hub/playground/", form_values(version, use_beam="on"))
    run = Run.objects.get()
    run_execute(run_id=run.pk, owner="test")
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED, run.error
    trial = client.get(reply.url).context["trial"]
    assert trial.done == trial.total == 3
    (group,) = trial.groups
    assert [cell.strategy for cell in group.cells] == ["greedy", "top-p 0.8, T 1", "beam 4"]
    for cell in group.cells:
        assert 1 <= cell.token_count <= 6
        assert cell.perplexity > 1
        assert all(len(token.others) == 5 for token in cell.tokens)
        most = [max(other[1] for other in token.others) for token in cell.tokens]
        assert all(token.p <= best for token, best in zip(cell.tokens, most, strict=True))
    page = client.get(f"/hub/runs/{run.uid}/").content.decode()
    assert f"/hub/playground/{run.uid}/" in page
