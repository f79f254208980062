"""Versions side by side. Staff."""

from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from modelhub.models import ModelVersion
from modelhub.policy import hub_page
from modelhub.selectors.comparison_rows import ComparedRow
from modelhub.selectors.evaluations_compare import people_verdicts
from modelhub.selectors.playground import version_writes
from modelhub.selectors.versions import versions_newest
from modelhub.selectors.versions_compare import (
    MOST_ASKED,
    MOST_COMPARED,
    VersionComparison,
    uids_known,
    versions_compare,
    versions_get,
)
from modelhub.serializers import user_of

VERSIONS_OFFERED = 200


@require_safe
@hub_page
def version_compare(request: HttpRequest) -> HttpResponse:
    """Two to four versions side by side: ?version=UID&version=UID, &only=differences."""
    named = (uid for uid in request.GET.getlist("version") if uid)
    asked = list(dict.fromkeys(named))[:MOST_ASKED]
    known = uids_known(uids=asked)
    versions = versions_get(uids=known)
    comparison = versions_compare(versions=versions) if len(versions) > 1 else None
    differences_alone = request.GET.get("only") == "differences"
    uids = [version.uid for version in versions]
    offered = [one for one in versions_newest(limit=VERSIONS_OFFERED) if one.uid not in uids]
    context = {
        "versions": versions,
        "comparison": comparison,
        "verdicts": people_verdicts(versions=versions, user=user_of(request)) if comparison else [],
        "parts": _parts(comparison, differences_alone=differences_alone) if comparison else [],
        "differences_alone": differences_alone,
        "unknown": [uid[:40] for uid in asked if uid not in known],
        "left_out": max(0, len(known) - MOST_COMPARED),
        "most": MOST_COMPARED,
        "offered": offered if len(versions) < MOST_COMPARED else [],
        "here": _address(uids),
        "without": [
            (one, _address([uid for uid in uids if uid != one.uid], differences_alone))
            for one in versions
        ],
        "playground": _playground(versions),
    }
    return render(request, "modelhub/version_compare.html", context)


def _parts(
    comparison: VersionComparison, *, differences_alone: bool
) -> list[tuple[str, list[ComparedRow]]]:
    """(part, its rows), the parts that have none left out."""
    parts = {
        "facts": comparison.facts,
        "origins": comparison.origins,
        "settings": comparison.settings,
        "figures": comparison.figures,
    }
    kept = {
        name: [row for row in rows if row.differs or not differences_alone]
        for name, rows in parts.items()
    }
    return [(name, rows) for name, rows in kept.items() if rows]


def _address(uids: list[str], differences_alone: bool = False) -> str:
    query = [("version", uid) for uid in uids]
    query += [("only", "differences")] if differences_alone else []
    return f"{reverse('version_compare')}?{urlencode(query)}"


def _playground(versions: list[ModelVersion]) -> str:
    """The playground with those of the versions that write; "" where none does."""
    writing = [("version", one.uid) for one in versions if version_writes(one)]
    return f"{reverse('playground')}?{urlencode(writing)}" if writing else ""
