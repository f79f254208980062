"""A run that goes on from another's checkpoint, with another blend or without some samples."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.configs import config_load
from modelhub.ml.manifest import manifest_verify, manifest_write
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.models import Run
from modelhub.selectors.runs import run_acts
from modelhub.services.continuing import run_continue
from modelhub.services.runs import run_create
from tests.builders import make_artifact

SMALL = {"block_tokens": 32, "blocks_per_step": 4, "checkpoint_every_steps": 10, "steps": 100}


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_user("boss", is_staff=True)


@pytest.fixture
def stopped(boss: User):
    """`stopped(steps=…)` → a cancelled run with checkpoints of steps 10 and 20."""

    def make(*, skips: list[list[int]] | None = None, **config: Any) -> Run:
        run = run_create(
            program="pretrain",
            config=config_load(PretrainConfig, {**SMALL, **config}),
            inputs={role: make_artifact() for role in ("tokens_1", "tokens_2", "tokenizer")},
            label="a novel",
            launcher="torchrun",
            processes=2,
            intent={"model": "novel", "parent": ""},
        )
        Run.objects.filter(pk=run.pk).update(status=Run.Status.CANCELLED)
        run.refresh_from_db()
        for step in (10, 20):
            folder = storage.run_folder_make(run) / "checkpoints" / f"step-{step:08d}"
            folder.mkdir(parents=True)
            (folder / "weights.safetensors").write_bytes(b"weights of step %d" % step)
            values = {"progress": {"skips": skips or []}}
            (folder / "state.json").write_text(json.dumps({"values": values}))
            manifest_write(folder)
        (storage.run_folder(run) / "resolved.json").write_text('{"dtype":"float32"}')
        return run

    return make


def test_it_has_the_checkpoint_whatever_becomes_of_the_run_it_goes_on_from(boss, stopped):
    run = stopped()
    made = run_continue(run=run, requested_by=boss, shares=[0.2, 0.8])
    storage.folder_remove(storage.run_folder(run))
    assert storage.checkpoint_steps(made) == [20]
    folder = storage.run_folder(made)
    manifest_verify(folder / "checkpoints" / "step-00000020")
    assert json.loads((folder / "resolved.json").read_text()) == {"dtype": "float32"}
    assert made.status == Run.Status.QUEUED
    assert (made.launcher, made.processes, made.label) == ("torchrun", 2, "a novel")
    assert made.intent == run.intent
    assert {one.role for one in made.inputs.all()} == {"tokens_1", "tokens_2", "tokenizer"}
    assert made.config["continues"] == f"{run.uid}@20"
    assert made.config["later_shares"] == {"20": {"shares": [0.2, 0.8], "first_sample": 80}}
    assert made.config["planned_samples"] == 0  # no caps, no plan to keep
    run.refresh_from_db()
    assert "later_shares" not in {k for k, v in run.config.items() if v and k == "later_shares"}
    assert run_acts(run=made)[0].change_message == f"goes on from {run}, step 20"
    assert run_acts(run=run)[0].change_message == f"continued by {made} from step 20"


def test_a_blend_begins_behind_what_was_skipped_and_what_was_planned_later_still_comes(
    boss, stopped
):
    run = stopped(
        skips=[[8, 16]],
        shares=[0.5, 0.5],
        later_shares={"5": [0.6, 0.4], "90": [1.0, 0.0]},
        epoch_caps=[3.0, 0.0],
        spike_rewinds=0,
    )
    made = run_continue(
        run=run, requested_by=boss, from_step=10, steps=200, shares=[0.2, 0.8], shares_step=50
    )
    assert made.config["planned_samples"] == 400
    assert made.config["later_shares"] == {
        "5": {"shares": [0.6, 0.4], "first_sample": 20, "planned_samples": 400},
        # 50 steps of 4, and the 16 that were skipped before the checkpoint.
        "50": {"shares": [0.2, 0.8], "first_sample": 216},
        "90": {"shares": [1.0, 0.0], "first_sample": 360},
    }
    # Another time it is made longer: the plans so far are written down.
    Run.objects.filter(pk=made.pk).update(status=Run.Status.FAILED)
    made.refresh_from_db()
    again = run_continue(run=made, requested_by=boss, steps=300)
    assert again.config["planned_samples"] == 400
    longer = again.config["later_shares"]
    assert longer["5"]["planned_samples"] == 400
    assert longer["10"] == {"shares": [0.6, 0.4], "first_sample": 56}
    assert longer["50"]["first_sample"] == 216


def test_samples_of_a_spike_are_left_out_from_the_checkpoint_before_on(boss, stopped):
    run = stopped()
    made = run_continue(run=run, requested_by=boss, from_step=10, skip_samples=["40-51"])
    assert made.config["skip_samples"] == ["40-51"]
    assert made.config["later_shares"] == {}
    assert storage.checkpoint_steps(made) == [10]


def test_a_shorter_run_keeps_the_plans_that_its_caps_were_worked_out_for(boss, stopped):
    capped = {"epoch_caps": [3.0, 0.0], "spike_rewinds": 0, "shares": [0.5, 0.5]}
    run = stopped(later_shares={"5": [0.6, 0.4]}, **capped)
    made = run_continue(run=run, requested_by=boss, steps=60)
    assert made.config["planned_samples"] == 400
    assert made.config["later_shares"] == {"5": {"shares": [0.6, 0.4], "planned_samples": 400}}


def test_what_is_left_out_is_what_the_spike_told_though_caps_are_planned_anew(boss, stopped):
    run = stopped(epoch_caps=[3.0, 0.0], spike_rewinds=0, shares=[0.5, 0.5])
    made = run_continue(run=run, requested_by=boss, from_step=10, skip_samples=["60-71"])
    # Samples 40 to 71 have the numbers that they had; the plan over the new length comes behind.
    assert made.config["later_shares"] == {"10": {"shares": [0.5, 0.5], "first_sample": 72}}
    assert made.config["planned_samples"] == 400
    with pytest.raises(ApplicationError, match="60-71: these numbers are of the shares so far"):
        run_continue(
            run=run, requested_by=boss, from_step=10, skip_samples=["60-71"], shares=[0.2, 0.8]
        )
    later = run_continue(
        run=run,
        requested_by=boss,
        from_step=10,
        skip_samples=["60-71"],
        shares=[0.2, 0.8],
        shares_step=15,
    )
    assert later.config["later_shares"]["15"]["first_sample"] == 72


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"from_step": 15}, "from_step", "checkpoints of the steps 20, 10"),
        ({"steps": 20}, "steps", "ask for more steps"),
        ({"shares": [1.0]}, "shares", "2 shares are wanted"),
        ({"shares": [1.0, -1.0]}, "shares", "none below 0"),
        ({"shares": [1.0, float("nan")]}, "shares", "none below 0"),
        ({"shares": [1.0, float("inf")]}, "shares", "none below 0"),
        ({"shares": [0.5, 0.5], "shares_step": 19}, "shares_step", "from 20 to 99"),
        ({"shares": [0.5, 0.5], "shares_step": 100}, "shares_step", "from 20 to 99"),
        ({"skip_samples": ["79-90"]}, "skip_samples", "has read all samples before 80"),
        ({"skip_samples": ["rubbish"]}, None, "skip_samples"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(boss, stopped, asked, field, said):
    run = stopped()
    with pytest.raises(ApplicationError, match=said) as refused:
        run_continue(run=run, requested_by=boss, **asked)
    assert refused.value.extra.get("field") == field
    assert Run.objects.count() == 1
    assert [one.name for one in storage.run_folder(run).parent.iterdir()] == [run.uid]


def test_only_a_run_that_has_stopped_and_left_a_checkpoint_is_gone_on_from(boss, stopped):
    run = stopped()
    Run.objects.filter(pk=run.pk).update(status=Run.Status.RUNNING)
    run.refresh_from_db()
    with pytest.raises(ConflictError, match="cancel it first"):
        run_continue(run=run, requested_by=boss)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.FAILED)
    run.refresh_from_db()
    storage.folder_remove(storage.run_folder(run))
    with pytest.raises(ApplicationError, match="no checkpoint"):
        run_continue(run=run, requested_by=boss)


# ── by the API and on the page ───────────────────────────────────────────────────────────────────


def test_the_api_goes_on_and_names_what_is_refused(boss, stopped, client):
    run = stopped()
    client.force_login(boss)
    address = reverse("api_run_continue", args=[run.uid])

    def sent(**body: Any) -> Any:
        return client.post(address, body, content_type="application/json")

    refused = sent(shares=[0.5])
    assert refused.status_code == 400
    assert refused.json()["extra"] == {"field": "shares"}
    assert sent(skip_samples=["all"]).status_code == 400
    assert Run.objects.count() == 1
    made = sent(shares=[0.2, 0.8], shares_step=30, steps=120)
    assert made.status_code == 202, made.json()
    config = made.json()["config"]
    assert config["later_shares"] == {"30": {"shares": [0.2, 0.8], "first_sample": 120}}
    assert config["steps"] == 120
    keyed = {"content_type": "application/json", "headers": {"Idempotency-Key": "once"}}
    assert client.post(address, {"shares": ["NaN", 1]}, **keyed).status_code == 400
    twice = [client.post(address, {"steps": 120}, **keyed).json()["uid"] for _ in range(2)]
    assert twice[0] == twice[1]
    client.force_login(User.objects.create_user("somebody"))
    assert sent(steps=130).status_code == 404


def test_the_page_shows_a_spike_with_its_documents_and_leads_back_behind_it(boss, stopped, client):
    run = stopped()
    blocks = [{"source": "web", "block": 7, "loss": None, "documents": ["doc-a", "<b>doc"]}]
    spike = {
        "step": 23,
        "reason": "the loss was 9.100 and 9.200",
        "back_to_step": 20,
        "first_sample": 80,
        "last_sample": 1191,
        "blocks": blocks,
    }
    older = {**spike, "step": 5, "back_to_step": 0, "first_sample": 0, "last_sample": 19}
    told = {"spikes": [older, spike]}
    (storage.run_folder(run) / "spikes.json").write_text(json.dumps(told))
    client.force_login(boss)
    page = client.get(reverse("run_detail", args=[run.uid])).content.decode()
    assert "doc-a, &lt;b&gt;doc" in page
    assert "no number" in page
    address = reverse("run_continue", args=[run.uid])
    assert page.count("Go back to the checkpoint before and skip these") == 1
    link = f"{address}?from_step=20&amp;skip_samples=80-1191"
    assert link in page
    asked = client.get(link.replace("&amp;", "&"))
    assert "80-1191" in asked.content.decode()
    body = {"from_step": "20", "skip_samples": "80-1191", "shares": "", "shares_step": ""}
    body["key"] = asked.context["form"]["key"].value()
    made = client.post(address, body | {"steps": ""})
    assert made.status_code == 302
    assert client.post(address, body | {"steps": ""})["Location"] == made["Location"]
    assert Run.objects.count() == 2  # pressed twice, it is one
    body["key"] = "another"
    new = Run.objects.latest("pk")
    assert new.config["skip_samples"] == ["80-1191"]
    assert new.config["later_shares"] == {}
    refused = client.post(address, body | {"skip_samples": "79-80", "shares": "1 2"})
    assert refused.status_code == 422
    assert "has read all samples before 80" in refused.content.decode()
    for shares in ("a", "nan 1"):
        assert "Numbers, with" in client.post(address, body | {"shares": shares}).content.decode()
    # While it works spikes are shown, and nothing is to be pressed.
    Run.objects.filter(pk=run.pk).update(status=Run.Status.RUNNING)
    page = client.get(reverse("run_detail", args=[run.uid])).content.decode()
    assert "doc-a" in page
    assert address not in page
    assert client.get(address).status_code == 404
