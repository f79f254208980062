"""What docs/api.md shows of the API runs as it stands there, on a site that is running."""

import re
from pathlib import Path

import pytest

from annotation.models import Membership
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.personal_tokens import personal_token_create
from tests.annotation.judged import make_answered_batch, rank_all
from tests.builders import make_member, make_project

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
HERE = "http://127.0.0.1:8000"


@pytest.mark.django_db(transaction=True)
def test_the_example_of_the_page_runs(live_server, monkeypatch, tmp_path) -> None:
    project = make_project()
    make_answered_batch(project)
    rank_all(make_member(project, "ann"))
    preference_dataset_freeze(project=project)
    manager = make_member(project, "mia", Membership.Role.MANAGER).user
    made = personal_token_create(user=manager, name="example", may_write=True, days=30)
    monkeypatch.setenv("RONDO_TOKEN", made.secret)
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert HERE in example
    told: dict[str, object] = {}
    exec(example.replace(HERE, live_server.url), told)
    assert (tmp_path / "rankings.jsonl").read_text().count("\n") >= 1
    assert told["project"] == project.uid
