"""The part of a version's page that serves it: who may, what it says, and what it leaves behind."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from alignment.methods import METHODS
from annotation.kind_forms import DialogueKindForm
from modelhub.models import Endpoint, ModelVersion, Run, Server
from modelhub.selectors.garbage import versions_kept
from modelhub.services.servers import (
    server_claim,
    server_end,
    server_ready,
    server_request,
    server_started,
)
from tests import builders
from tests.modelhub.served import make_served

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("eve", is_staff=True))
    return client


@pytest.fixture
def version(tmp_path, settings) -> ModelVersion:
    settings.SERVERS_DIR = tmp_path / "servers"
    return make_served(tmp_path / "files")


def make_ready(version: ModelVersion) -> Server:
    eve = User.objects.get(username="eve")
    server = server_request(version=version, context_tokens=256, requested_by=eve)
    server_claim(server=server, host="gpu-1")
    server_started(server=server, process="1:2:3", port=4321)
    server_ready(server=server)
    server.refresh_from_db()
    return server


def page_of(client: Client, version: ModelVersion) -> str:
    return client.get(reverse("version_detail", args=[version.uid])).content.decode()


def test_a_version_is_asked_to_be_served_and_to_stop_and_both_are_kept(staff, version) -> None:
    page = page_of(staff, version)
    assert "Serve it" in page and "about 1.6\xa0GB of memory" in page
    start = reverse("server_start", args=[version.uid])
    reply = staff.post(start, {"context_tokens": 512}, follow=True)
    server = Server.objects.get()
    assert (server.status, server.context_tokens) == ("waiting", 512)
    page = reply.content.decode()
    assert "smol v1 is going to be served." in page
    assert "for a worker that runs programs" in page
    assert "Serve it" not in page
    again = staff.post(start, {"context_tokens": 512}, follow=True).content.decode()
    assert "smol v1 is served already." in again
    stopped = staff.post(reverse("server_stop", args=[server.uid]), follow=True).content.decode()
    assert "The server is stopping." in stopped and "Serve it" in stopped
    once_more = staff.post(reverse("server_stop", args=[server.uid]), follow=True)
    assert "The server has ended already." in once_more.content.decode()
    acts = set(
        LogEntry.objects.filter(user__username="eve").values_list("change_message", flat=True)
    )
    assert {"server asked for", "server asked to stop"} <= acts


@pytest.mark.parametrize("asked", ["0", "4096", "many", ""])
def test_a_context_that_the_version_has_not_is_refused(staff, version, asked) -> None:
    staff.post(reverse("server_start", args=[version.uid]), {"context_tokens": asked})
    assert not Server.objects.exists()


def test_what_writes_no_text_has_no_server(staff, db) -> None:
    reward = builders.make_version("judge", role=ModelVersion.Role.REWARD)
    assert "Serve it" not in page_of(staff, reward)
    reply = staff.post(
        reverse("server_start", args=[reward.uid]), {"context_tokens": 64}, follow=True
    )
    assert "judge v1 is a reward model: it writes no text." in reply.content.decode()
    assert not Server.objects.exists()


def test_a_served_version_is_an_endpoint_for_talks_and_for_a_judge(staff, version) -> None:
    server = make_ready(version)
    page = page_of(staff, version)
    assert "http://127.0.0.1:4321/v1" in page and "smol@1" in page and "served-smol-v1" in page
    assert ("served-smol-v1", "served-smol-v1") in DialogueKindForm().fields["endpoint_a"].choices
    judge = staff.get(reverse("method_launch", args=["judge"]) + "?endpoint=served-smol-v1")
    form = judge.context["form"]
    assert form["setting-engine"].value() == "openai"
    assert form["setting-endpoint_url"].value() == "http://127.0.0.1:4321/v1"
    assert form["setting-endpoint_model"].value() == "smol@1"
    server_end(server=server, error="It ended by itself.")
    assert not Endpoint.objects.exists()
    assert "It ended by itself." in page_of(staff, version)


def trial_values(version: ModelVersion, **changed: object) -> dict[str, object]:
    values = {"layout": "plain", "prompt": "One", "few_shot": "assistant", "max_tokens": 6}
    values |= {"versions": [version.uid], "seed": 3, "use_greedy": "on"}
    return {**values, **changed}


def test_the_playground_asks_the_server_where_that_is_wanted(staff, version) -> None:
    url = reverse("playground")
    assert "by their servers" not in staff.get(url).content.decode()
    make_ready(version)
    page = staff.get(url, {"version": version.uid, "by": "servers"})
    assert "by their servers" in page.content.decode()
    assert page.context["form"]["by_servers"].value() is True
    staff.post(url, trial_values(version, by_servers="on"))
    run = Run.objects.get()
    assert run.config["servers"] == ["http://127.0.0.1:4321/v1"]
    assert run.config["served_names"] == ["smol@1"]
    again = staff.get(reverse("playground_trial", args=[run.uid]))
    assert again.context["form"]["by_servers"].value() is True
    staff.post(url, trial_values(version))
    assert Run.objects.first().config["servers"] == []
    refused = staff.post(url, trial_values(version, by_servers="on", use_beam="on"))
    assert refused.status_code == 422
    assert "a server searches in no other way" in refused.content.decode()


def test_an_endpoint_that_is_not_there_fills_in_nothing(staff, version) -> None:
    page = staff.get(reverse("method_launch", args=["judge"]) + "?endpoint=served-smol-v1")
    default = METHODS["judge"].config().engine
    assert page.context["form"]["setting-engine"].value() == default


def test_one_without_a_chat_template_is_no_endpoint(staff, version) -> None:
    ModelVersion.objects.update(chat_template="")
    make_ready(version)
    assert not Endpoint.objects.exists()
    assert "It has no chat template" in page_of(staff, version)


def test_an_endpoint_that_a_person_named_so_is_left_alone(staff, version) -> None:
    own = Endpoint.objects.create(
        name="served-smol-v1", base_url="http://x.example/v1", served_model="x"
    )
    server = make_ready(version)
    assert server.endpoint.name == f"served-smol-v1-{server.uid[:6]}"
    server_end(server=server, error="")
    assert list(Endpoint.objects.all()) == [own]


def test_the_page_follows_the_server_and_says_nothing_new_twice(staff, version) -> None:
    make_ready(version)
    url = reverse("version_serving", args=[version.uid])
    part = staff.get(url)
    assert "ready" in part.content.decode() and "<html" not in part.content.decode()
    seen = part.context["serving_seen"]
    assert staff.get(url, {"seen": seen}).status_code == 204
    Server.objects.update(status="ended", error="It ended by itself.", endpoint=None)
    assert "It ended by itself." in staff.get(url, {"seen": seen}).content.decode()


def test_a_server_whose_worker_is_away_is_said_to_be_so_and_can_be_given_up(
    staff, version, settings
) -> None:
    server = make_ready(version)
    settings.SERVER_LEASE_S = 0.0
    assert "Its worker on gpu-1 is away." in page_of(staff, version)
    page = staff.post(reverse("server_stop", args=[server.uid]), follow=True).content.decode()
    assert "Its machine has not been heard of." in page
    assert "Serve it" in page


def test_a_served_version_is_no_garbage_and_one_that_was_served_is(staff, version) -> None:
    newest = builders.make_version("smol")
    server = make_ready(version)
    assert versions_kept([version, newest]) == {version.pk, newest.pk}
    server_end(server=server, error="")
    assert versions_kept([version, newest]) == {newest.pk}
    version.delete()
    assert not Server.objects.exists()


@pytest.mark.parametrize("route", ["version_serving", "server_start", "server_stop"])
def test_others_than_staff_do_not_find_it(version, route, client) -> None:
    client.force_login(User.objects.create_user("eve", is_staff=True))
    server = make_ready(version)
    client.force_login(User.objects.create_user("mallory"))
    uid = server.uid if route == "server_stop" else version.uid
    ask = client.get if route == "version_serving" else client.post
    assert ask(reverse(route, args=[uid])).status_code == 404
    server.refresh_from_db()
    assert server.status == "ready" and server.stop_asked_at is None


def test_a_refused_start_keeps_what_was_written(staff, version) -> None:
    start = reverse("server_start", args=[version.uid])
    reply = staff.post(start, {"context_tokens": 10**8})
    page = reply.content.decode()
    assert reply.status_code == 422
    assert f'value="{10**8}"' in page and "the version&#x27;s context is 1 to" in page
    assert staff.post(start, {"context_tokens": "many"}).status_code == 422
    assert not Server.objects.exists()


def test_the_memory_is_told_of_the_context_that_is_asked_for(staff, version) -> None:
    url = reverse("version_serving", args=[version.uid])
    told = staff.get(url, {"context_tokens": 16}).content.decode()
    assert "of memory for 16 tokens" in told and "<form" not in told
    most = staff.get(url, {"context_tokens": 10**8}).content.decode()
    assert f"for {version.context_tokens} tokens" in most
    assert "of memory" not in staff.get(url, {"context_tokens": "many"}).content.decode()
