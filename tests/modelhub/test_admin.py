"""The hub in the admin: read by staff, changed by services, deleted by nobody."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from modelhub.models import Endpoint, Run, RunInput
from modelhub.services.versions import alias_move
from tests import builders

SHOWN = ("run", "model", "modelversion", "alias", "artifact", "endpoint")


@pytest.fixture
def staff(eve, signed_in) -> Client:
    return signed_in(eve)


@pytest.fixture
def rows(counting) -> dict[str, int]:
    version, run = builders.make_version("smol"), counting()
    RunInput.objects.create(run=run, role="base", artifact=version.artifact)
    alias = alias_move(model=version.model, name="champion", version=version, actor=None, reason="")
    return {
        "run": run.pk,
        "model": version.model.pk,
        "modelversion": version.pk,
        "alias": alias.pk,
        "artifact": version.artifact.pk,
    }


def address(name: str, page: str, *args: object) -> str:
    return reverse(f"admin:modelhub_{name}_{page}", args=args)


def test_staff_read_every_row(staff, rows):
    for name, pk in rows.items():
        assert staff.get(address(name, "changelist")).status_code == 200
        assert staff.get(address(name, "change", pk)).status_code == 200


def test_nothing_of_a_lineage_is_added_changed_or_deleted_even_by_a_superuser(rows, signed_in):
    client = signed_in(builders.make_user("root", is_staff=True, is_superuser=True))
    for name, pk in rows.items():
        assert client.get(address(name, "add")).status_code == 403
        assert client.post(address(name, "change", pk), {"name": "x"}).status_code == 403
        assert client.post(address(name, "delete", pk), {"post": "yes"}).status_code == 403
        page = client.get(address(name, "changelist")).content.decode()
        assert "delete_selected" not in page


def test_members_have_no_admin(rows, dana, signed_in):
    client = signed_in(dana)
    for name in rows:
        assert client.get(address(name, "changelist")).status_code in (302, 404)


def test_runs_are_cancelled_and_retried_together(staff, counting, eve):
    waiting, done = counting(), counting()
    Run.objects.filter(pk=done.pk).update(status=Run.Status.SUCCEEDED, result={})
    selected = {"_selected_action": [waiting.pk, done.pk]}
    url = address("run", "changelist")
    page = staff.post(url, {"action": "cancel", **selected}, follow=True).content.decode()
    assert "1 cancelled, or stopping." in page
    assert "The run has succeeded already." in page
    assert Run.objects.get(pk=waiting.pk).status == Run.Status.CANCELLED
    page = staff.post(url, {"action": "retry", **selected}, follow=True).content.decode()
    assert "1 queued again." in page
    assert Run.objects.get(pk=waiting.pk).status == Run.Status.QUEUED
    acts = LogEntry.objects.filter(user=eve).values_list("change_message", flat=True)
    assert list(acts.order_by("pk")) == ["cancelled", "retried"]


def test_the_list_of_models_leads_to_the_import(staff, db):
    page = staff.get(address("model", "changelist")).content.decode()
    assert reverse("model_import") in page


def test_what_is_shown_leads_to_its_page(staff, rows):
    page = staff.get(address("run", "changelist")).content.decode()
    assert reverse("run_detail", args=[Run.objects.get().uid]) in page


def test_an_administrator_registers_an_endpoint_and_its_key_is_a_name(signed_in, db):
    client = signed_in(builders.make_user("root", is_staff=True, is_superuser=True))
    form = {
        "name": "chat",
        "base_url": "http://127.0.0.1:8001/v1",
        "served_model": "smol",
        "api_key_variable": "CHAT_API_KEY",
    }
    assert client.post(address("endpoint", "add"), form).status_code == 302
    assert Endpoint.objects.get().api_key_variable == "CHAT_API_KEY"
    for hostile in ("javascript:alert(1)", "file:///etc/passwd"):
        response = client.post(
            address("endpoint", "add"), {**form, "name": "x", "base_url": hostile}
        )
        assert response.status_code == 200
    assert Endpoint.objects.count() == 1


def test_hostile_names_are_text(staff, counting):
    run = counting()
    Run.objects.filter(pk=run.pk).update(label="<img src=x onerror=alert(1)>")
    page = staff.get(address("run", "changelist")).content.decode()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
