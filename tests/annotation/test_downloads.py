"""S37: what people wrote is sent as a file to keep, and no browser takes it for a page."""

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db.models import FileField
from django.urls import reverse

from annotation.models import Candidate, Project
from annotation.services.datasets import preference_dataset_freeze
from tests.annotation.judging import make_submission, make_task, uids_of
from tests.builders import make_member


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_an_export_is_a_file_whatever_is_in_it_and_however_it_is_asked_for(
    project: Project, dana: User, signed_in, format: str
) -> None:
    task = make_task(project, "ranking")
    for number, one in enumerate(Candidate.objects.all()):
        one.text = f"<html><script>{number}</script><svg onload=x>"
        one.save()
    person = make_member(project, "ann")
    make_submission(task, person, {"tiers": [[uid] for uid in uids_of(task)], "unacceptable": []})
    dataset = preference_dataset_freeze(project=project, created_by=dana)
    project.name = 'x"; filename="evil.html\r\nSet-Cookie: a=b'
    project.save()
    page = reverse("dataset_export", args=[dataset.uid])
    api = reverse("api_dataset_export", args=[project.uid, dataset.uid])
    for asked in ({}, {"HTTP_ACCEPT": "text/html"}, {"HTTP_RANGE": "bytes=0-10"}):
        sealed(signed_in(dana).get(f"{page}?format={format}", **asked), format)
    sealed(signed_in(dana).get(f"{api}?file_format={format}"), format)
    refused = signed_in(dana).get(f"{api}?file_format={format}", HTTP_ACCEPT="text/html")
    assert refused.status_code == 406


def test_a_table_is_a_file(project: Project, dana: User, signed_in) -> None:
    for format in ("csv", "json"):
        path = reverse("project_quality", args=[project.uid])
        sealed(signed_in(dana).get(path, {"table": "people", "format": format}), format)


def sealed(answer, ending: str) -> None:
    """As a download that nothing can be made of."""
    assert answer.status_code == 200
    disposition = answer["Content-Disposition"]
    assert disposition.startswith('attachment; filename="')
    assert disposition.endswith(f'.{ending}"')
    assert disposition.count('"') == 2
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"].startswith("sandbox;")
    assert answer["Content-Type"].partition(";")[0] not in {"text/html", "image/svg+xml"}
    assert "no-store" in answer["Cache-Control"]


def test_nobody_can_upload_a_file_that_is_served_again() -> None:
    """What comes in is read, line by line; no model keeps a file of somebody's."""
    kept = [
        field
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, FileField)
    ]
    assert kept == []
