"""The form and the API that launch a method: one run a launch, and refusals where they belong."""

import json
import re

import pytest
from django import forms
from django.contrib.auth.models import AnonymousUser
from django.test import Client
from django.urls import resolve, reverse

from alignment.launch_forms import INPUT, SETTING, LaunchForm
from alignment.launch_origins import input_origins
from alignment.methods import METHODS
from alignment.ml.configs import PpoConfig
from modelhub.config_fields import config_fields
from modelhub.ml.pretraining.presets import SIZES
from modelhub.models import Artifact, ModelVersion, Run
from tests import builders

API = "/api/v1/runs/"


@pytest.fixture
def staff(eve, signed_in) -> Client:
    return signed_in(eve)


@pytest.fixture
def references(db):
    base = builders.make_version("smol", role=ModelVersion.Role.BASE)
    run = Run.objects.create(program="rejection", config={}, status="succeeded", result={})
    run.outputs.create(
        role="demonstrations", artifact=builders.make_artifact(Artifact.Kind.DEMONSTRATIONS)
    )
    return {"base": f"version/{base.uid}", "demonstrations": f"run/{run.uid}/demonstrations"}


def launched():
    return Run.objects.filter(program="sft")


def filled(client, references, **changed):
    """What a browser sends: the form as it was shown, with inputs chosen and fields changed."""
    form = client.get(reverse("method_launch", args=["sft"])).context["form"]
    shown = {field.html_name: field.value() for field in form}
    shown |= {INPUT + role: value for role, value in references.items()}
    shown |= {"model_name": "helper", **changed}
    return {
        name: "on" if value is True else value
        for name, value in shown.items()
        if value not in (None, False)
    }


def test_every_setting_is_a_field_with_the_classs_own_words(staff):
    page = staff.get(reverse("method_launch", args=["sft"])).content.decode()
    assert 'name="setting-lora_rank"' in page
    assert "Of the change to a layer: more learns more, and weighs more" in page


def test_a_preset_fills_the_form(staff):
    form = staff.get(reverse("method_launch", args=["sft"]), {"preset": "llama2"}).context["form"]
    assert form[SETTING + "examples_per_step"].value() == 64
    assert form[SETTING + "weight_decay"].value() == 0.1
    assert form[SETTING + "seed"].value() == 0  # where the preset says nothing, the default


def test_the_form_launches_what_it_shows(staff, references):
    address = reverse("method_launch", args=["sft"])
    answer = staff.post(address, filled(staff, references, **{SETTING + "lr": "3e-5"}))
    run = launched().get()
    assert answer.status_code == 302 and answer.url == reverse("run_detail", args=[run.uid])
    assert (run.config["lr"], run.config["epochs"]) == (3e-5, 2)
    assert run.intent["model"] == "helper"


def test_sent_twice_it_is_one_run(staff, references):
    sent = filled(staff, references)
    answers = [staff.post(reverse("method_launch", args=["sft"]), sent) for _ in range(2)]
    assert answers[0].url == answers[1].url
    assert launched().count() == 1


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({SETTING + "lr": "-1"}, SETTING + "lr"),
        ({SETTING + "epochs": "two"}, SETTING + "epochs"),
        ({INPUT + "base": "version/" + "0" * 32}, INPUT + "base"),
        ({"model_name": "no spaces"}, "model_name"),
        ({"processes": "2"}, "processes"),
    ],
)
def test_a_refusal_is_shown_at_its_field_and_nothing_is_lost(staff, references, changed, field):
    sent = filled(staff, references, label="kept", **changed)
    answer = staff.post(reverse("method_launch", args=["sft"]), sent)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert 'value="kept"' in answer.content.decode()
    assert not launched().exists()


def test_all_that_is_refused_is_told_at_once(staff, references):
    wrong = {"lr": "-1", "epochs": "two", "loss_turns": "none", "dropout": "1"}
    changed = {SETTING + name: value for name, value in wrong.items()} | {"model_name": "no spaces"}
    sent = filled(staff, references, **changed)
    answer = staff.post(reverse("method_launch", args=["sft"]), sent)
    form = answer.context["form"]
    assert set(form.errors) == changed.keys()
    assert form.errors[SETTING + "lr"] == ["wanted more than 0, got -1.0"]
    assert all(len(told) == 1 for told in form.errors.values())
    for name in changed:  # and the summary leads to each
        assert f'<a href="#id_{name}">' in answer.content.decode()


@pytest.fixture
def tokens(db):
    run = Run.objects.create(
        program="tokenise", config={}, status=Run.Status.SUCCEEDED, result={"tokens": 1}
    )
    run.outputs.create(role="tokens", artifact=builders.make_artifact(Artifact.Kind.TOKENS))
    return f"run/{run.uid}/tokens"


def test_pretraining_with_neither_tokenizer_nor_model_is_not_queued(staff, tokens):
    sent = {"key": "k", "model_name": "bard", "launcher": "python", "processes": "1"}
    sent |= {"strategy": "ddp", INPUT + "tokens": tokens}
    answer = staff.post(reverse("method_launch", args=["pretrain"]), sent)
    assert answer.status_code == 422
    told = answer.context["form"].errors
    assert (
        list(told) == [INPUT + "tokenizer"] and "needs a tokenizer" in told[INPUT + "tokenizer"][0]
    )
    body = {"method": "pretrain", "model_name": "bard", "inputs": {"tokens": [tokens]}}
    refused = send(staff, body)
    assert refused.status_code == 400
    assert refused.json()["extra"]["field"] == "inputs.tokenizer"
    assert not Run.objects.filter(program="pretrain").exists()


def test_a_pretrainings_size_shares_processes_and_start_are_refused_at_once(staff, tokens):
    sent = {"key": "k", "model_name": "bard", "launcher": "python", "processes": "2"}
    sent |= {"strategy": "ddp", INPUT + "tokens": tokens}
    sent |= {SETTING + "size": "1558m", SETTING + "shares": "a,b"}
    answer = staff.post(reverse("method_launch", args=["pretrain"]), sent)
    told = answer.context["form"].errors
    wanted = {SETTING + "size", SETTING + "shares", "processes", INPUT + "tokenizer"}
    assert told.keys() == wanted
    assert all(len(one) == 1 for one in told.values())


@pytest.mark.parametrize("size", ["1558m", "medium"])
def test_a_refused_size_is_told_those_of_its_architecture_alone(staff, tokens, size):
    body = {"method": "pretrain", "model_name": "bard", "inputs": {"tokens": [tokens]}}
    body["settings"] = {"architecture": "bloom", "size": size}
    refused = send(staff, body)
    assert refused.json()["extra"]["field"] == "settings.size"
    sizes = ", ".join(SIZES["bloom"])
    assert f"wanted a size of bloom: {sizes}, got {size!r}" in refused.json()["message"]


def test_the_summary_leads_to_boxes_to_tick_too(staff, references):
    sent = filled(staff, references)
    del sent[INPUT + "demonstrations"]
    page = staff.post(reverse("method_launch", args=["sft"]), sent).content.decode()
    assert f'<a href="#id_{INPUT}demonstrations">' in page
    assert page.count(f'id="id_{INPUT}demonstrations"') == 1


def test_a_setting_of_few_values_is_chosen(staff):
    form = staff.get(reverse("method_launch", args=["sft"])).context["form"]
    turns, adapter = form[SETTING + "loss_turns"], form[SETTING + "adapter"]
    assert [value for value, _ in turns.field.choices] == ["written", "every", "last"]
    assert adapter.field.choices[0] == ("", "–")
    assert (turns.value(), adapter.value()) == ("written", "")
    families = staff.get(reverse("method_launch", args=["clean_corpus"])).context["form"]
    assert families[SETTING + "families"].value() == ("gopher", "c4", "fineweb")


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_methods_defaults_are_choices_and_its_words_sentences(method, staff):
    form = LaunchForm(method=method, user=AnonymousUser())
    for setting in config_fields(method.config):
        field = form.fields[SETTING + setting.name]
        if setting.choices:
            default = setting.default if setting.is_list else (setting.default,)
            assert set(default) <= set(setting.choices), setting.name
        assert field.label[0].isupper() or field.label[0].isdigit()
        words = str(field.help_text)
        # λ stays what it is, and so does a name: k3, forward_kl.
        is_name = re.match(r"[a-z]+[\d_]", words)
        begins = words[:1].isupper() or not ("a" <= words[:1] <= "z") or is_name
        assert not words or (begins and words[-1] in ".?…"), words
    choices = {one.name for one in config_fields(method.config) if one.choices}
    # What is named like a setting of few values is one.
    few = {"engine", "dtype", "optimizer", "loss", "schedule", "checker", "scheme", "adapter"}
    assert {one.name for one in config_fields(method.config)} & few <= choices


def test_a_missing_choice_takes_the_default(staff, references):
    sent = filled(staff, references)
    del sent[SETTING + "loss_turns"]
    assert staff.post(reverse("method_launch", args=["sft"]), sent).status_code == 302
    assert launched().get().config["loss_turns"] == "written"


def test_settings_stand_under_their_classs_headings(staff):
    form = staff.get(reverse("method_launch", args=["ppo"])).context["form"]
    headings = [heading for heading, _ in form.settings()]
    assert headings.index("What is drawn") < headings.index("What is rewarded")
    assert headings[0] == "PPO"  # those without a heading of their own
    assert sum(len(fields) for _, fields in form.settings()) == len(config_fields(PpoConfig))


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_where_nothing_fits_the_page_leads_to_what_makes_it(method, staff):
    page = staff.get(reverse("method_launch", args=[method.name])).content.decode()
    for one in method.inputs:
        origins = input_origins(one)
        assert origins
        for origin in origins:
            assert f'<a href="{origin.address}">' in page
            assert resolve(origin.address).func


def test_the_docs_of_a_method_are_a_link(staff):
    page = staff.get(reverse("method_launch", args=["dpo"])).content.decode()
    assert 'href="/docs/algorithms/dpo/"' in page
    assert 'href="/docs/algorithms/dpo/"' in staff.get(reverse("method_list")).content.decode()


def test_looking_launches_nothing(staff, references):
    sent = filled(staff, references)
    assert staff.get(reverse("method_launch", args=["sft"]), sent).status_code == 200
    assert not launched().exists()


def test_a_launch_without_a_csrf_token_is_refused(eve, staff, references):
    sent = filled(staff, references)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(eve)
    assert strict.post(reverse("method_launch", args=["sft"]), sent).status_code == 403
    assert not launched().exists()


def test_an_earlier_run_can_be_launched_again_with_changes(staff, references):
    sent = filled(staff, references, **{SETTING + "epochs": "7"})
    staff.post(reverse("method_launch", args=["sft"]), sent)
    address = reverse("method_launch", args=["sft"])
    form = staff.get(address, {"run": launched().get().uid}).context["form"]
    assert form[SETTING + "epochs"].value() == 7
    assert form["model_name"].value() == "helper"


def test_datasets_are_offered_to_the_managers_of_their_projects_alone(
    project, dana, eve, signed_in
):
    artifact = builders.make_artifact(Artifact.Kind.RANKINGS)
    dataset = project.datasets.create(number=1, query={}, counts={}, artifact=artifact)
    body = {
        "method": "reward",
        "inputs": {"base": "smol@1", "rankings": f"dataset/{dataset.uid}"},
        "model_name": "judge",
    }
    builders.make_version("smol", role=ModelVersion.Role.BASE)
    assert send(signed_in(eve), body).json()["extra"] == {"field": "inputs.rankings"}
    dana.is_staff = True
    dana.save()
    page = signed_in(dana).get(reverse("method_launch", args=["reward"])).content.decode()
    assert str(dataset) in page
    assert send(signed_in(dana), body).status_code == 202


# ── API ──────────────────────────────────────────────────────────────────────────────────────────


def send(client, body, **headers):
    return client.post(API, json.dumps(body), content_type="application/json", headers=headers)


def body_of(references, **changed):
    return {"method": "sft", "inputs": references, "model_name": "helper", **changed}


def test_a_run_is_launched_and_answered_202(staff, references):
    answer = send(staff, body_of(references, settings={"lr": 1e-4}))
    assert answer.status_code == 202
    run = launched().get()
    assert answer.json() == {"run": run.uid}
    assert run.config["lr"] == 1e-4


def test_with_a_key_it_is_launched_once_and_another_body_is_a_conflict(staff, references):
    body = body_of(references)
    answers = [send(staff, body, **{"Idempotency-Key": "one"}) for _ in range(3)]
    assert {answer.json()["run"] for answer in answers} == {launched().get().uid}
    other = send(staff, body_of(references, label="other"), **{"Idempotency-Key": "one"})
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"settings": {"lr": 0.0}}, "settings.lr"),
        ({"settings": {"max_tokens": 1.5}}, "settings.max_tokens"),
        ({"inputs": {}}, "inputs.base"),
        ({"method": "alchemy"}, "method"),
        ({"model_name": ""}, "model_name"),
    ],
)
def test_a_refusal_names_the_field(staff, references, changed, field):
    answer = send(staff, body_of(references, **changed))
    assert answer.status_code == 400
    assert answer.json()["extra"] == {"field": field}
    assert not launched().exists()


def test_a_body_of_another_shape_is_refused_by_field(staff, references):
    for changed, name in (
        ({"processes": 0}, "processes"),
        ({"inputs": {"base": 7}}, "inputs"),
        ({"surprise": 1}, "surprise"),
    ):
        answer = send(staff, body_of(references, **changed))
        assert answer.status_code == 400
        assert name in answer.json()["extra"]["fields"]


def test_the_methods_are_listed_with_their_schemas(staff):
    found = {one["name"]: one for one in staff.get("/api/v1/methods/").json()["results"]}
    assert found["sft"]["schema"]["properties"]["lr"]["default"] == 2e-5
    assert found["reward"]["registers"] == "reward"
    roles = [one["role"] for one in found["reward"]["inputs"]]
    assert roles == ["base", "rankings", "demonstrations", "policy"]


def test_the_api_does_not_exist_for_members(references, dana, signed_in):
    client = signed_in(dana)
    assert send(client, body_of(references)).status_code == 404
    assert client.get("/api/v1/methods/").status_code == 404


def test_a_text_of_several_lines_is_kept_as_it_was_written(staff):
    """A browser ends lines by CR LF; the same principles are the same annotator all the same."""
    form = staff.get(reverse("method_launch", args=["revise"])).context["form"]
    assert isinstance(form[SETTING + "principles"].field.widget, forms.Textarea)
    assert not isinstance(form[SETTING + "engine"].field.widget, forms.Textarea)
    assert form[SETTING + "principles"].field.clean("Be short.\r\nBe kind.") == (
        "Be short.\nBe kind."
    )
