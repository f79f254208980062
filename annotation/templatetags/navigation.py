"""The site's navigation: the places this person may go.

The apps above are linked by the name of their URL, which is all that may be known of them here.
"""

from dataclasses import dataclass

from django import template
from django.http import HttpRequest
from django.template import Context
from django.urls import NoReverseMatch, reverse

from annotation import policy

register = template.Library()


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
        ("Projects", "home", ("/projects/", "/datasets/"), True),
        ("Rounds", "campaign_list", ("/rounds/",), manager),
        ("Model hub", "model_list", ("/hub/",), staff),
        ("Admin", "admin:index", ("/admin/",), staff),
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
