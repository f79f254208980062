"""The showcase: every kind judged, through the services, by people who cannot sign in."""

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from annotation.models import Membership, Project, Submission, Task
from annotation.selectors.quality import quality_report
from annotation.services.showcase import PEOPLE

pytestmark = pytest.mark.django_db


def test_the_showcase_has_work_of_every_kind_and_people_who_need_help(
    dana: User, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("annotation.services.showcase._LAPS", 1)
    call_command("seed_showcase", "dana")
    project = Project.objects.get(name__startswith="Showcase")
    assert f"/projects/{project.uid}/" in capsys.readouterr().out
    submissions = Submission.objects.filter(task__project=project)
    assert set(submissions.values_list("task__kind", flat=True)) == set(Task.Kind.values)
    assert submissions.count() > 150
    days = {made.date() for made in submissions.values_list("created_at", flat=True)}
    assert len(days) > 20
    assert {one.kind for one in quality_report(project=project).kinds} == set(Task.Kind.values)
    invented = Membership.objects.filter(project=project).exclude(user=dana)
    assert invented.count() == len(PEOPLE) + 1
    assert not any(one.user.has_usable_password() for one in invented)
    assert not Task.objects.filter(project=project, kind="dialogue", closed_at=None).exists()
    with pytest.raises(CommandError, match="already"):
        call_command("seed_showcase", "dana")


def test_it_wants_somebody_to_manage_it() -> None:
    with pytest.raises(CommandError, match="no user nobody"):
        call_command("seed_showcase", "nobody")
