"""The API of corpora: for staff alone, strict, page by page, and each import queued once."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from modelhub.models import RuleSet, Run, RunOutput
from tests.modelhub.corpora import make_corpus

pytestmark = pytest.mark.django_db
CORPORA = "/api/v1/hub/corpora"
TEXTS = [f"Text number {i}. " + "A plain sentence follows it here. " * 3 for i in range(5)]
CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。是的，这是我们的书。" * 4


@pytest.fixture
def staff(eve: User, signed_in: Any) -> Client:
    return signed_in(eve)


@pytest.fixture
def corpus(tmp_path: Path) -> RunOutput:
    return make_corpus(tmp_path, [*TEXTS, CHINESE], licence="CC0-1.0")


def send(client: Client, path: str, body: Any, **headers: str) -> Any:
    return client.post(
        f"{CORPORA}{path}", json.dumps(body), content_type="application/json", headers=headers
    )


def test_a_corpus_is_listed_and_described(staff: Client, corpus: RunOutput) -> None:
    (one,) = staff.get(f"{CORPORA}/").json()["results"]
    assert one["uid"] == corpus.run.uid
    assert (one["documents"], one["program"]) == (6, "import_corpus")
    assert one["sha256"] == corpus.artifact.sha256
    told = staff.get(f"{CORPORA}/{corpus.run.uid}/").json()
    assert told["config"]["licence"] == "CC0-1.0"
    assert told["result"]["documents"] == 6
    assert {"words", "characters"} <= set(told["signals"])


def test_documents_are_read_by_cursor_each_once(staff: Client, corpus: RunOutput) -> None:
    address, cursor, found = f"{CORPORA}/{corpus.run.uid}/documents/", 0, []
    while cursor is not None:
        page = staff.get(address, {"cursor": cursor, "page_size": 4}).json()
        found += page["results"]
        cursor = page["next"]
        assert page["count"] == 6 and not page["is_limited"]
    assert [one["place"] for one in found] == list(range(6))
    assert [one["id"] for one in found] == [f"d{i}" for i in range(6)]
    assert found[0]["text"] == TEXTS[0]
    assert found[5]["language"] == "zh" and found[5]["licence"] == "CC0-1.0"
    assert found[0]["signals"]


def test_documents_are_searched_filtered_and_cut(staff: Client, corpus: RunOutput) -> None:
    address = f"{CORPORA}/{corpus.run.uid}/documents/"
    assert [one["id"] for one in staff.get(address, {"text": "NUMBER 3"}).json()["results"]] == [
        "d3"
    ]
    (chinese,) = staff.get(address, {"language": "zh", "characters": 4}).json()["results"]
    assert chinese["text"] == "话说天下" and chinese["is_cut"]
    signal = staff.get(f"{CORPORA}/{corpus.run.uid}/").json()["signals"][0]
    everything = staff.get(address, {"signal": signal, "least": -1e9}).json()["results"]
    nothing = staff.get(address, {"signal": signal, "least": 1e9}).json()["results"]
    assert len(everything) == 6 and nothing == []


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "-1"},
        {"cursor": "first"},
        {"page_size": "0"},
        {"page_size": "201"},
        {"characters": "100001"},
        {"signal": "beauty"},
        {"least": "much"},
        {"order": "id"},
    ],
)
def test_a_strange_query_is_refused(
    staff: Client, corpus: RunOutput, query: dict[str, str]
) -> None:
    assert staff.get(f"{CORPORA}/{corpus.run.uid}/documents/", query).status_code == 400


@pytest.fixture
def body() -> dict[str, Any]:
    root = settings.IMPORT_ROOTS[0]
    root.mkdir(parents=True)
    (root / "texts.txt").write_text("One text.")
    return {"locations": ["texts.txt"], "source": "mine", "licence": "CC0-1.0"}


def test_an_import_with_a_key_is_queued_once(staff: Client, body: dict[str, Any]) -> None:
    first = send(staff, "/", body, **{"Idempotency-Key": "k1"})
    again = send(staff, "/", body, **{"Idempotency-Key": "k1"})
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    run = Run.objects.get()
    assert run.uid == first.json()["run"] and run.program == "import_corpus"
    assert run.config["locations"] == [str(settings.IMPORT_ROOTS[0] / "texts.txt")]
    assert run.requested_by.username == "eve"
    other = send(staff, "/", {**body, "source": "yours"}, **{"Idempotency-Key": "k1"})
    assert other.status_code == 409
    assert send(staff, "/", body).status_code == 202
    assert Run.objects.count() == 2


@pytest.mark.parametrize(
    "change",
    [
        {"locations": []},
        {"locations": ["/etc/passwd"]},
        {"locations": ["../texts.txt"]},
        {"locations": ["file:///etc/passwd"]},
        {"source": "a b"},
        {"format": "pickle"},
        {"split": "pattern"},
        {"language": "English"},
        {"queue": "gpu"},
    ],
)
def test_a_refused_import_queues_nothing(
    staff: Client, body: dict[str, Any], change: dict[str, Any]
) -> None:
    assert send(staff, "/", {**body, **change}).status_code == 400
    assert not Run.objects.exists()


def test_a_cleaning_keeps_its_thresholds_and_is_queued_once(
    staff: Client, corpus: RunOutput
) -> None:
    rules = {"gopher.words_min": 20, "gopher.words_max": None}
    asked = {"name": "mild", "note": "for tales", "thresholds": rules}
    address = f"/{corpus.run.uid}/clean/"
    first = send(staff, address, asked, **{"Idempotency-Key": "k1"})
    assert first.status_code == 202
    assert send(staff, address, asked, **{"Idempotency-Key": "k1"}).json() == first.json()
    run = Run.objects.get(program="clean_corpus")
    assert first.json() == {"run": run.uid, "rule_set": "mild@1"}
    assert run.config["thresholds"]["gopher.words_min"] == 20
    assert "gopher.words_max" not in RuleSet.objects.get().thresholds
    assert run.inputs.get(role="corpus").artifact == corpus.artifact


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"thresholds": {"gopher.beauty": 1}},
        {"thresholds": {"gopher.words_min": "many"}},
        {"families": []},
    ],
)
def test_a_refused_cleaning_keeps_and_queues_nothing(
    staff: Client, corpus: RunOutput, change: dict[str, Any]
) -> None:
    reply = send(staff, f"/{corpus.run.uid}/clean/", {"name": "mild", **change})
    assert reply.status_code == 400
    assert not RuleSet.objects.exists()
    assert not Run.objects.filter(program="clean_corpus").exists()


def test_corpora_do_not_exist_for_members_and_outsiders(
    corpus: RunOutput, alice: User, charlie: User, signed_in: Any
) -> None:
    for user in (alice, charlie):
        client = signed_in(user)
        for path in ("/", f"/{corpus.run.uid}/", f"/{corpus.run.uid}/documents/"):
            assert client.get(f"{CORPORA}{path}").status_code == 404
        for path in ("/", f"/{corpus.run.uid}/clean/"):
            assert send(client, path, {"name": "x"}).status_code == 404
    assert not RuleSet.objects.exists()


def test_another_runs_uid_is_no_corpus(staff: Client, db: None) -> None:
    run = Run.objects.create(program="sft", config={})
    for path in (f"/{run.uid}/", f"/{run.uid}/documents/"):
        assert staff.get(f"{CORPORA}{path}").status_code == 404
    assert send(staff, f"/{run.uid}/clean/", {"name": "x"}).status_code == 404
