"""The page of what somebody was told."""

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from annotation.models import Membership, Notification, Project
from annotation.services.notifications import notification_send

pytestmark = pytest.mark.django_db


def test_a_person_sees_their_own_lines_and_marks_them_as_read(
    project: Project, alice: User, bob: User, signed_in
) -> None:
    mine, his = (Membership.objects.get(user=user) for user in (alice, bob))
    notification_send(recipients=[mine], text="Sent <b>back</b>", path="/projects/x/")
    notification_send(recipients=[his], text="For bob alone", path="/")
    client = signed_in(alice)
    shown = client.get(reverse("notifications")).content.decode()
    assert "Sent &lt;b&gt;back&lt;/b&gt;" in shown and 'href="/projects/x/"' in shown
    assert "For bob alone" not in shown
    assert client.post(reverse("notifications")).status_code == 302
    assert Notification.objects.get(recipient=mine).read_at is not None
    assert Notification.objects.get(recipient=his).read_at is None
    assert "Mark all as read" not in client.get(reverse("notifications")).content.decode()


def test_the_menu_says_how_much_is_unread(
    project: Project, alice: User, signed_in, django_assert_max_num_queries
) -> None:
    client = signed_in(alice)
    assert "data-unread" not in client.get(reverse("notifications")).content.decode()
    mine = Membership.objects.get(user=alice)
    notification_send(recipients=[mine], text="One", path="/")
    notification_send(recipients=[mine], text="Two", path="/")
    with django_assert_max_num_queries(9):
        assert "data-unread>2<" in client.get(reverse("notifications")).content.decode()
