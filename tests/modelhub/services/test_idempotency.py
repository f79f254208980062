"""D05: one act and one reply for a key, however often and however simultaneously it comes."""

import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from modelhub.errors import ApplicationError, ConflictError
from modelhub.models import IdempotentRequest, Model
from modelhub.services.idempotency import idempotent, idempotent_requests_expire
from tests.builders import make_user


def make_model(name: str = "made") -> dict[str, object]:
    return {"name": Model.objects.create(name=name).name, "list": [1, None, "ü"]}


def test_a_repeated_request_gets_the_reply_and_does_nothing(eve):
    replies = [idempotent(user=eve, key="k", body={"a": 1}, act=make_model) for _ in range(3)]
    assert replies == [{"name": "made", "list": [1, None, "ü"]}] * 3
    assert Model.objects.count() == 1


def test_the_order_of_keys_in_a_body_does_not_matter(eve):
    idempotent(user=eve, key="k", body={"a": 1, "b": 2}, act=make_model)
    idempotent(user=eve, key="k", body={"b": 2, "a": 1}, act=make_model)


def test_another_body_under_a_used_key_is_a_conflict(eve):
    idempotent(user=eve, key="k", body={"a": 1}, act=make_model)
    with pytest.raises(ConflictError) as refused:
        idempotent(user=eve, key="k", body={"a": 2}, act=make_model)
    assert refused.value.status == 409


def test_a_key_belongs_to_its_user(eve):
    mallory = make_user("mallory")
    idempotent(user=eve, key="k", body={}, act=lambda: make_model("one"))
    assert idempotent(user=mallory, key="k", body={"x": 1}, act=lambda: make_model("two")) == {
        "name": "two",
        "list": [1, None, "ü"],
    }


def test_a_refused_act_keeps_nothing_and_may_be_tried_again(eve):
    def refuse() -> None:
        Model.objects.create(name="half")
        raise ApplicationError("no")

    with pytest.raises(ApplicationError, match="no"):
        idempotent(user=eve, key="k", body={}, act=refuse)
    assert not Model.objects.exists()
    assert not IdempotentRequest.objects.exists()
    idempotent(user=eve, key="k", body={}, act=make_model)


def test_a_key_may_be_used_anew_after_a_day(eve):
    idempotent(user=eve, key="k", body={"a": 1}, act=make_model)
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(hours=25))
    idempotent(user=eve, key="k", body={"a": 2}, act=lambda: make_model("again"))
    assert Model.objects.count() == 2
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert idempotent_requests_expire() == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "a\x00b"])
def test_an_impossible_key_is_refused(eve, key):
    with pytest.raises(ApplicationError, match="Idempotency-Key"):
        idempotent(user=eve, key=key, body={}, act=make_model)


@pytest.mark.django_db(transaction=True)
def test_of_twenty_simultaneous_requests_one_acts_and_all_get_its_reply():
    eve = make_user("eve")
    barrier, replies, acts = threading.Barrier(20), [], []

    def act() -> dict[str, int]:
        acts.append(1)
        return {"pk": Model.objects.create(name=f"made-{len(acts)}").pk}

    def ask() -> None:
        barrier.wait()
        try:
            replies.append(idempotent(user=eve, key="k", body={}, act=act))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acts) == Model.objects.count() == 1
    assert len(replies) == 20
    assert all(reply == replies[0] for reply in replies)
