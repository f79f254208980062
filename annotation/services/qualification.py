"""The test before real work: scored as soon as it is done, passed for good."""

from typing import Any

from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_noop

from annotation.models import Membership, Notification
from annotation.selectors.qualification import Qualification, qualification_of
from annotation.selectors.queue import qualification_is_wanted
from annotation.services.notifications import notification_send


@transaction.atomic
def qualification_settle(*, membership: Membership) -> Qualification:
    """Where a member stands in the project's test, and what follows from it.

    Whoever has done all of it with the score that the project asks for is let in, and told so;
    whoever has not is told to talk to a manager. Costs nothing for those who need no test; called
    as often as one likes.
    """
    state = qualification_of(membership=membership)
    if not qualification_is_wanted(membership=membership) or not state.is_done:
        return state
    if not state.is_passed:
        _tell_once(
            membership,
            gettext_noop(
                "You reached %(percent)s %% in the test; %(wanted)s %% are asked for. "
                "Your manager can tell you how to go on."
            ),
            {"percent": state.percent, "wanted": state.percent_wanted},
        )
        return state
    let_in = Membership.objects.filter(pk=membership.pk, qualified_at=None)
    if let_in.update(qualified_at=timezone.now()):
        _tell_once(
            membership,
            gettext_noop("You passed the test with %(percent)s %%. Welcome!"),
            {"percent": state.percent},
        )
    membership.refresh_from_db(fields=["qualified_at"])
    return state


@transaction.atomic
def membership_qualify(*, membership: Membership) -> Membership:
    """Let a member in without the test, or in spite of it. Twice changes nothing."""
    let_in = Membership.objects.filter(pk=membership.pk, qualified_at=None)
    if let_in.update(qualified_at=timezone.now()):
        line = gettext_noop("%(project)s: your manager has let you in to the real work.")
        _tell_once(membership, line, {"project": membership.project.name})
    membership.refresh_from_db(fields=["qualified_at"])
    return membership


def _tell_once(membership: Membership, text: str, values: dict[str, Any]) -> None:
    path = reverse("project_dashboard", args=[membership.project.uid])
    if not Notification.objects.filter(recipient=membership, text=text, values=values).exists():
        notification_send(recipients=[membership], text=text, values=values, path=path)
