"""Lines left for people."""

import pytest
from django.utils.translation import override

from annotation.models import Membership, Notification, Project
from annotation.services.notifications import (
    notification_send,
    notifications_read,
    reviewers_notify,
)
from annotation.services.projects import membership_remove
from tests.builders import make_member

pytestmark = pytest.mark.django_db


def test_a_line_is_left_for_each_and_is_one_line(project: Project) -> None:
    ann, ben = make_member(project, "ann"), make_member(project, "ben")
    assert notification_send(recipients=[ann, ben], text="Sent\nback:  see", path="/x/") == 2
    (line,) = Notification.objects.filter(recipient=ann)
    assert (line.text, line.path, line.read_at) == ("Sent back: see", "/x/", None)
    notification_send(recipients=[ann], text="x" * 500, path="/x/")
    assert len(Notification.objects.filter(recipient=ann).first().text) == 200


def test_reviewers_and_managers_are_told_but_not_who_caused_it(project: Project) -> None:
    make_member(project, "ann")
    bob = make_member(project, "bob", Membership.Role.REVIEWER)
    dana = make_member(project, "dana", Membership.Role.MANAGER)
    gone = make_member(project, "gone", Membership.Role.REVIEWER)
    membership_remove(membership=gone)
    assert reviewers_notify(project=project, text="?", path="/", besides=bob) == 1
    assert Notification.objects.get().recipient == dana


def test_reading_marks_ones_own_alone_and_once(project: Project) -> None:
    ann, ben = make_member(project, "ann"), make_member(project, "ben")
    notification_send(recipients=[ann, ben], text="1", path="/")
    notification_send(recipients=[ann, ben], text="2", path="/")
    bens = Notification.objects.filter(recipient=ben)
    assert notifications_read(recipient=ann, uids=[one.uid for one in bens]) == 0
    assert notifications_read(recipient=ben, uids=[bens[0].uid]) == 1
    assert notifications_read(recipient=ben) == 1
    assert notifications_read(recipient=ben) == 0
    assert Notification.objects.filter(recipient=ann, read_at=None).count() == 2


def test_a_line_with_values_is_read_in_each_ones_language(project: Project) -> None:
    ann = make_member(project, "ann")
    text = "%(person)s asks: %(question)s"
    values = {"person": "ben", "question": "Is 5 %(d) of\nit enough?"}
    notification_send(recipients=[ann], text=text, values=values, path="/")
    (told,) = Notification.objects.all()
    assert told.line == "ben asks: Is 5 %(d) of it enough?"
    with override("zh-hans"):
        assert told.line == "ben 提问：Is 5 %(d) of it enough?"


def test_what_somebody_wrote_is_no_format(project: Project) -> None:
    notification_send(recipients=[make_member(project, "ann")], text="100 %(x)s %", path="/")
    assert Notification.objects.get().line == "100 %(x)s %"
