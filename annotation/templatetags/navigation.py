"""The site's navigation: the places this person may go.

The apps above are linked by the name of their URL, which is all that may be known of them here.
"""

from dataclasses import dataclass

from django import template
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.template import Context
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext, gettext_noop

from annotation import policy
from annotation.selectors.notifications import unread_count

register = template.Library()
ROLES = [gettext_noop("annotator"), gettext_noop("reviewer"), gettext_noop("manager")]


@dataclass(frozen=True, kw_only=True)
class Link:
    label: str
    url: str
    current: bool


@register.simple_tag(takes_context=True)
def nav_links(context: Context) -> list[Link]:
    """Projects for everyone; rounds for managers; hub and admin for staff. At most one query."""
    request: HttpRequest = context["request"]
    user = request.user
    staff = bool(getattr(user, "is_staff", False))
    manager = policy.manages_any(user)
    wanted = [
        (gettext("Projects"), "home", ("/projects/", "/datasets/"), True),
        (gettext("Rounds"), "campaign_list", ("/rounds/",), manager),
        (gettext("Model hub"), "model_list", ("/hub/", "/launch/", "/corpora/"), staff),
        (gettext("Admin"), "admin:index", ("/admin/",), staff),
    ]
    links = []
    for label, name, prefixes, allowed in wanted:
        if not allowed:
            continue
        try:
            url = reverse(name)
        except NoReverseMatch:
            continue
        here = request.path == url or request.path.startswith(prefixes)
        links.append(Link(label=label, url=url, current=here))
    return links


@register.simple_tag(takes_context=True)
def unread(context: Context) -> int:
    """How much the person was told and has not read. One query for who is signed in."""
    user = context["request"].user
    return unread_count(user=user) if isinstance(user, User) else 0
