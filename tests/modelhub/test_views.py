"""The hub's pages: who sees them, what they show, what their buttons do."""

import re

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from modelhub import storage
from modelhub.models import Alias, Artifact, Model, Run, RunMetric
from modelhub.services import runs
from modelhub.services.artifacts import artifact_store
from tests import builders


@pytest.fixture
def pages(counting):
    """(method, URL) of every page and button of the hub."""
    version, run = builders.make_version("smol"), counting()
    one = {"model_uid": version.model.uid, "version_uid": version.uid, "run_uid": run.uid}
    named = [
        ("get", "model_list", []),
        ("get", "model_import", []),
        ("post", "model_import", []),
        ("get", "planner", []),
        ("get", "model_detail", ["model_uid"]),
        ("get", "version_detail", ["version_uid"]),
        ("post", "version_verify", ["version_uid"]),
        ("post", "version_alias", ["version_uid"]),
        ("get", "run_list", []),
        ("get", "run_detail", ["run_uid"]),
        ("get", "run_metrics", ["run_uid"]),
        ("post", "run_cancel", ["run_uid"]),
        ("post", "run_retry", ["run_uid"]),
    ]
    return [
        (method, reverse(name, kwargs={key: one[key] for key in keys}))
        for method, name, keys in named
    ]


@pytest.fixture
def staff(eve, signed_in) -> Client:
    return signed_in(eve)


def page_of(client: Client, name: str, *args: str) -> str:
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200
    return response.content.decode()


def test_the_hub_does_not_exist_for_members_and_outsiders(
    pages, alice, bob, dana, charlie, signed_in
):
    before = Run.objects.values().get()
    for user in (alice, bob, dana, charlie):
        client = signed_in(user)
        for method, url in pages:
            response = getattr(client, method)(url)
            assert response.status_code == 404, (user, url)
            unknown = getattr(client, method)(url.replace("/hub/", "/hub/unknown/"))
            assert unknown.status_code == 404
    assert Run.objects.values().get() == before


def test_a_stranger_is_sent_to_sign_in(pages, client):
    for method, url in pages:
        response = getattr(client, method)(url)
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("sign_in"))


def test_staff_see_every_page(pages, staff):
    for method, url in pages:
        if method == "get":
            assert staff.get(url).status_code == 200, url


def test_an_unknown_uid_is_not_found(staff, db):
    for name in ("model_detail", "version_detail", "run_detail", "run_metrics"):
        assert staff.get(reverse(name, args=["0" * 32])).status_code == 404


def test_a_button_needs_its_token(pages, eve):
    client = Client(enforce_csrf_checks=True)
    client.force_login(eve)
    for method, url in pages:
        if method == "post":
            assert client.post(url).status_code == 403, url
            assert client.get(url).status_code in (200, 405)
    assert Run.objects.get().status == Run.Status.QUEUED


def test_a_run_is_cancelled_and_retried_by_its_buttons(staff, counting, eve):
    run = counting()
    page = page_of(staff, "run_detail", run.uid)
    assert reverse("run_cancel", args=[run.uid]) in page
    response = staff.post(reverse("run_cancel", args=[run.uid]), follow=True)
    assert "The run is cancelled." in response.content.decode()
    assert reverse("run_retry", args=[run.uid]) in response.content.decode()
    response = staff.post(reverse("run_retry", args=[run.uid]), follow=True)
    page = response.content.decode()
    assert "The run is queued again." in page
    assert "retried" in page
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED


def test_a_success_cannot_be_cancelled_or_retried(staff, counting):
    run = counting()
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED, result={"loss": 0.25})
    page = page_of(staff, "run_detail", run.uid)
    assert reverse("run_cancel", args=[run.uid]) not in page
    assert reverse("run_retry", args=[run.uid]) not in page
    for name in ("run_cancel", "run_retry"):
        response = staff.post(reverse(name, args=[run.uid]), follow=True)
        assert "succeeded already" in response.content.decode()


def test_a_runs_page_shows_what_it_is_doing(staff, counting):
    run = counting(steps=9, seed=11)
    runs.run_claim(run_id=run.pk, owner="gpu-box:17")
    runs.run_heartbeat(run_id=run.pk, fence=1, progress=(3, 9, "steps"))
    log = storage.run_folder_make(run) / storage.LOG_NAME
    log.write_text("<script>alert(1)</script>\n")
    page = page_of(staff, "run_detail", run.uid)
    seed = '<dt title="seed">seed</dt><dd>11</dd>'
    for shown in ("running", "attempt 1", "gpu-box:17", "3 of 9 steps", seed):
        assert shown in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page


def test_a_reward_models_report_is_drawn(staff, counting):
    run = counting()
    rows = [
        {"pairs_of": "better", "pairs": 7, "accuracy": 0.75},
        {"pairs_of": "slightly better", "pairs": 5, "accuracy": 0.5},
    ]
    curve = [{"belief": 0.55, "accuracy": 0.6}, {"belief": 0.95, "accuracy": 0.8}]
    run.result = {
        "notes": ["3 answers <b>are</b> empty"],
        "held_out_tables": {"by_degree": rows, "reliability": curve},
    }
    run.status = Run.Status.SUCCEEDED
    run.save()
    page = page_of(staff, "run_detail", run.uid)
    assert "3 answers &lt;b&gt;are&lt;/b&gt; empty" in page
    assert "held out tables · by degree" in page and "slightly better" in page
    assert '<circle cx="283.2"' in page  # 6 + 0.9 · 308
    assert "reliability" in page


def test_a_failed_run_says_why(staff, counting):
    run = counting()
    Run.objects.filter(pk=run.pk).update(status=Run.Status.FAILED, error="the dog ate <b>it</b>")
    page = page_of(staff, "run_detail", run.uid)
    assert "It failed" in page
    assert "the dog ate &lt;b&gt;it&lt;/b&gt;" in page


def test_the_live_part_is_sent_when_it_has_changed_and_asks_no_more_at_the_end(staff, counting):
    run = counting()
    url = reverse("run_detail", args=[run.uid])

    def poll(seen: str, status: str):
        return staff.get(url, {"seen": seen, "status": status}, headers={"HX-Request": "true"})

    first = staff.get(url)
    seen = first.context["seen"]
    assert poll(seen, "queued").status_code == 204
    runs.run_claim(run_id=run.pk, owner="here")
    moved = poll(seen, "queued")
    assert moved.status_code == 200
    assert 'id="run-live"' in moved.content.decode()
    assert 'hx-swap-oob="true"' in moved.content.decode()
    assert "<html" not in moved.content.decode()
    seen = re.search(r"seen=([0-9a-f]{16})", moved.content.decode())[1]
    assert poll(seen, "running").status_code == 204
    runs.run_attempt_fail(run_id=run.pk, fence=1, reason="no", final=True)
    ended = poll(seen, "running").content.decode()
    assert "hx-trigger" not in ended
    assert reverse("run_retry", args=[run.uid]) in ended


def test_a_poll_reads_nothing_of_what_stands_beside_the_live_part(staff, counting):
    run = counting(inputs={"prompts": builders.make_artifact(Artifact.Kind.PROMPTS)})
    url = reverse("run_detail", args=[run.uid])
    page = staff.get(url)
    assert page.context["inputs"][0].title == "prompts"
    with CaptureQueriesContext(connection) as queries:
        seen = {"seen": page.context["seen"], "status": "queued"}
        assert staff.get(url, seen, headers={"HX-Request": "true"}).status_code == 204
    read = " ".join(one["sql"] for one in queries)
    assert "modelhub_run" in read
    for table in ("modelhub_runinput", "modelhub_runoutput", "django_admin_log"):
        assert table not in read


def test_curves_are_sent_when_there_is_something_new(staff, counting):
    run = counting()
    url = reverse("run_metrics", args=[run.uid])
    first = staff.get(url).json()
    assert (first["series"], first["is_ended"]) == ({}, False)
    assert staff.get(url, {"seen": first["seen"]}).status_code == 204
    runs.run_claim(run_id=run.pk, owner="here")
    runs.run_metrics_add(run_id=run.pk, fence=1, points=[(1, "loss", 0.5)], offset=40)
    second = staff.get(url, {"seen": first["seen"]}).json()
    assert second["series"]["loss"]["values"] == [0.5]
    runs.run_attempt_fail(run_id=run.pk, fence=1, reason="no", final=True)
    assert staff.get(url, {"seen": second["seen"]}).json()["is_ended"]


def test_runs_are_filtered(staff, counting):
    kept, cancelled = counting(), counting()
    runs.run_cancel(run=cancelled, actor=None)
    page = page_of(staff, "run_list")
    assert str(kept) in page
    assert str(cancelled) in page
    page = staff.get(reverse("run_list"), {"status": "cancelled"}).content.decode()
    assert str(kept) not in page
    assert str(cancelled) in page
    for hostile in ({"status": "x' OR 1=1"}, {"page": "-1"}, {"page": "x"}, {"program": "../"}):
        assert staff.get(reverse("run_list"), hostile).status_code == 200


def test_the_list_of_runs_costs_the_same_for_many(staff, counting, django_assert_max_num_queries):
    for _ in range(30):
        counting()
    with django_assert_max_num_queries(9):
        page_of(staff, "run_list")


def test_looking_at_runs_wakes_the_workers_where_no_scheduler_does(staff, counting, monkeypatch):
    """D36: the doorbells are rung by a page, only for a run that waits for too long."""
    from modelhub import tasks

    rung = []
    for task in (tasks.reap_runs, tasks.ring_queued_runs):
        monkeypatch.setattr(task, "delay", lambda name=task.name: rung.append(name))
    run = counting()
    page_of(staff, "run_list")
    assert rung == []
    long_ago = timezone.now() - timezone.timedelta(hours=1)
    Run.objects.filter(pk=run.pk).update(created_at=long_ago)
    page_of(staff, "run_detail", run.uid)
    assert rung == ["modelhub.tasks.reap_runs", "modelhub.tasks.ring_queued_runs"]


def test_models_and_versions_show_what_they_are(staff, db):
    version = builders.make_version("smol")
    version.card = "Be <i>careful</i>."
    version.chat_template = "{% for m in messages %}<|im_start|>{{ m }}{% endfor %}"
    version.facts = {"held_out": {"accuracy": 0.8125, "pairs": 96}}
    version.save()
    assert "smol" in page_of(staff, "model_list")
    assert "v1" in page_of(staff, "model_detail", version.model.uid)
    page = page_of(staff, "version_detail", version.uid)
    assert "Be &lt;i&gt;careful&lt;/i&gt;." in page
    assert "{% for m in messages %}&lt;|im_start|&gt;{{ m }}{% endfor %}" in page
    assert "<dt>held out · accuracy</dt><dd>0.8125</dd>" in page


def test_an_alias_is_pointed_at_a_version_and_the_move_is_shown(staff, db):
    version = builders.make_version("smol")
    url = reverse("version_alias", args=[version.uid])
    response = staff.post(url, {"name": "champion", "reason": "first"}, follow=True)
    assert "smol@champion is smol v1 now." in response.content.decode()
    assert Alias.objects.get().version == version
    assert "first" in page_of(staff, "model_detail", version.model.uid)
    response = staff.post(url, {"name": "the best", "reason": ""})
    assert response.status_code == 422
    assert Alias.objects.count() == 1


def test_verifying_names_what_has_changed(staff, db):
    version = builders.make_version("smol")  # a row without a folder: its files are gone
    response = staff.post(reverse("version_verify", args=[version.uid]))
    page = response.content.decode()
    assert response.status_code == 200
    assert "It is not what it was made of" in page
    assert "<strong>smol v1</strong>" in page


def test_verifying_forgets_damage_that_is_no_longer_there(staff, db, tmp_path):
    (tmp_path / "weights.txt").write_text("weights")
    version, lost = builders.make_version("smol"), builders.make_version("lost")
    version.artifact = artifact_store(folder=tmp_path, kind="model")
    version.save()
    Artifact.objects.update(damage="weights.txt has changed")
    for one in (version, lost):
        staff.post(reverse("version_verify", args=[one.uid]))
        one.artifact.refresh_from_db()
    assert version.artifact.damage == "" and version.artifact.verified_at is not None
    assert lost.artifact.damage


def import_form(client: Client) -> dict[str, str]:
    page = client.get(reverse("model_import"))
    return {
        "key": page.context["form"]["key"].value(),
        "source": "directory",
        "location": "smol",
        "model": "smol",
        "role": "base",
        "card": "A card.",
    }


@pytest.fixture
def folder():
    folder = settings.IMPORT_ROOTS[0] / "smol"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_form_sent_twice_imports_once(staff, folder, eve):
    form = import_form(staff)
    answers = [staff.post(reverse("model_import"), form) for _ in range(3)]
    run = Run.objects.get()
    assert {answer["Location"] for answer in answers} == {reverse("run_detail", args=[run.uid])}
    assert run.config["location"] == str(folder)
    assert run.requested_by == eve
    form = import_form(staff)
    staff.post(reverse("model_import"), form)
    assert Run.objects.count() == 2


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"model": ""}, "smol"),
        ({"model": "", "source": "hub", "location": "Organisation/Smol-LM.2"}, "smol-lm2"),
        ({"model": "", "source": "gguf", "location": "smol/My Weights.gguf"}, "my-weights"),
    ],
)
def test_without_a_name_it_has_that_of_what_is_imported(staff, folder, given, name):
    (folder / "My Weights.gguf").write_bytes(b"GGUF")
    staff.post(reverse("model_import"), {**import_form(staff), **given})
    assert Run.objects.get().config["model"] == name


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"location": "/etc"}, "is not there, or not below an import folder"),
        ({"location": ""}, "Say where it is."),
        ({"source": "hub", "location": "not an id"}, "is no hub id"),
        ({"source": "elsewhere"}, "Select a valid choice"),
        ({"model": "two words"}, "Enter a valid"),
        ({"role": "admin"}, "Select a valid choice"),
        ({"key": ""}, "Import a model"),
    ],
)
def test_a_refused_import_keeps_the_form_and_says_why(staff, folder, change, shown):
    response = staff.post(reverse("model_import"), {**import_form(staff), **change})
    assert response.status_code == 422
    assert shown in response.content.decode()
    assert "A card." in response.content.decode()
    assert not Run.objects.exists()
    assert not Model.objects.exists()


def test_an_import_is_asked_for_again_with_what_it_was_asked_for(staff, folder, eve):
    staff.post(reverse("model_import"), import_form(staff))
    run = Run.objects.get()
    run.status, run.error = Run.Status.FAILED, "refused: config.json: no architecture"
    run.save()
    again = f"{reverse('model_import')}?run={run.uid}"
    page = page_of(staff, "run_detail", run.uid)
    # What would be refused once more is not what the page asks for first.
    assert f'class="button primary" href="{again}"' in page
    assert re.search(r'class="button" type="submit">\s*Retry', page)
    form = staff.get(again).context["form"]
    assert form["location"].value() == str(folder)
    assert form["source"].value() == "directory"
    assert form["card"].value() == "A card."
    assert form["key"].value() != import_form(staff)["key"]


@pytest.mark.parametrize("program", sorted(settings.RUN_PROGRAMS))
def test_what_a_refused_run_leads_to_is_there(staff, counting, program):
    run = counting()
    run.config |= {"source": "directory", "location": "smol", "locations": ["book.txt"]}
    run.program, run.status, run.error = program, Run.Status.FAILED, "refused: as it is"
    run.save()
    page = page_of(staff, "run_detail", run.uid)
    led = re.search(r'<a class="button primary" href="([^"]+)"', page)
    if led is None:  # by a command alone: what is left is to ask again
        assert program == "import_questions"
        assert re.search(r'class="button primary" type="submit">\s*Retry', page)
    elif program != "playground":  # of which this run has no trial
        assert staff.get(led[1]).status_code == 200


def test_a_run_that_broke_is_retried_first(staff, folder):
    staff.post(reverse("model_import"), import_form(staff))
    Run.objects.update(status=Run.Status.FAILED, error="the machine went away")
    page = page_of(staff, "run_detail", Run.objects.get().uid)
    assert re.search(r'class="button primary" type="submit">\s*Retry', page)
    assert f'class="button" href="{reverse("model_import")}?run=' in page


def test_points_without_a_run_of_theirs_are_not_shown(staff, counting):
    mine, other = counting(), counting()
    RunMetric.objects.create(run=other, step=1, name="loss", value=1.0)
    assert staff.get(reverse("run_metrics", args=[mine.uid])).json()["series"] == {}


# ── the planner ──────────────────────────────────────────────────────────────────────────────────

ASKED = {
    "model": "llama/7b",
    "tokens_billions": "1000",
    "vocabulary": "32000",
    "block_tokens": "2048",
    "blocks_per_pass": "4",
    "dtype": "bfloat16",
    "optimizer": "adamw",
    "devices": "256",
    "tensor_parallel": "1",
    "pipeline_parallel": "1",
    "device_memory_gib": "40",
    "device_tflops": "400",
    "mfu_percent": "40",
}


def test_the_planner_tells_memory_and_time_before_anything_is_asked(staff):
    page = page_of(staff, "planner")
    assert "6.7 B" in page and "tokens to a weight" in page and "Launched as" in page


def test_a_plan_is_told_by_itself_where_a_field_changed(staff):
    url = reverse("planner")
    told = staff.get(url, ASKED, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in told
    assert "12.1 days" in told
    # 6,738,415,616 weights: 4 bytes each on every device, 4 / 256 where they are shared.
    assert re.search(r"and weights \(ZeRO 3\).*?computed again.*?fits.*?fsdp2", told, re.S)
    staged = staff.get(url, {**ASKED, "devices": "4", "pipeline_parallel": "4"}).content.decode()
    assert "ddp, pipeline_parallel 4" in staged
    whole = staff.get(url, {**ASKED, "devices": "1"}).content.decode()
    assert "No way fits into a device" in whole


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tensor_parallel", "3", "a divisor of 256 devices"),
        ("pipeline_parallel", "4", "1, or all 256 devices and no tensor_parallel"),
        ("devices", "0", "greater than or equal to 1"),
        ("model", "llama/8b", "not one of the available choices"),
        ("tokens_billions", "nan", "Enter a number."),
    ],
)
def test_a_figure_that_makes_no_plan_is_named(staff, field, value, said):
    page = staff.get(reverse("planner"), {**ASKED, field: value}).content.decode()
    assert said in page
    assert "tokens to a weight" not in page
    assert page.count(said) == 1  # at its field, and not once more beside the form
    headers = {"HX-Request": "true"}
    told = staff.get(reverse("planner"), {**ASKED, field: value}, headers=headers).content.decode()
    assert said in told


def test_a_plan_of_too_few_tokens_tells_no_loss_and_no_time_of_nothing(staff):
    asked = {**ASKED, "tokens_billions": "0.000001", "vocabulary": "64"}
    told = staff.get(reverse("planner"), asked).content.decode()
    assert "under 1 s" in told and ">0 s<" not in told
    # ln 64 = 4.16 nats: the law's figure of a 7B on 1,000 tokens is far above it.
    assert "guessing among all of them alike has 4.16" in told
    assert "guessing" not in staff.get(reverse("planner"), ASKED).content.decode()


def test_a_version_of_a_quantised_file_says_so_on_its_page_its_card_and_in_the_list(staff):
    version = builders.make_version("smol")
    version.facts = {"weights_from": "Q4_1"}
    version.save()
    page = page_of(staff, "version_detail", version.uid)
    assert "come from a quantised file (Q4_1, 4 bits a weight)" in page
    readme = page_of(staff, "version_readme", version.uid)
    assert "| weights from | Q4_1, 4 bits a weight |" in readme
    assert "from Q4_1" in page_of(staff, "model_detail", version.model.uid)
    whole = builders.make_version("whole")
    assert "quantised file" not in page_of(staff, "version_detail", whole.uid)


def test_a_run_that_was_handed_out_does_not_say_that_it_runs(staff):
    run = Run.objects.create(program="sft", config={}, status="running", owner=Run.ELSEWHERE)
    page = page_of(staff, "run_detail", run.uid)
    assert "handed out" in page and f".venv/bin/python manage.py run_export {run.uid}" in page
    assert "<progress" not in page and ">running<" not in page
    listed = page_of(staff, "run_list")
    assert "handed out" in listed and ">running<" not in listed


def test_a_runs_page_begins_with_the_figures_it_is_for(staff):
    result = {"held_out": {"accuracy": 0.75, "pairs": 40}, "dtype": "bfloat16"}
    run = Run.objects.create(program="reward", config={}, status="succeeded", result=result)
    page = page_of(staff, "run_detail", run.uid)
    places = [page.index(one) for one in (">0.75<", "run-curves", "Settings", "run-measured")]
    assert places == sorted(places)
