"""Each guard of the annotator's workplace, taken away: the test that watches over it must fail.

Others are beside what they guard: the queue without conditional updates (test_concurrency.py), a
site that answers before it commits (test_web_deaths.py), raw HTML let through (pages/), JSON as
Python reads it (test_hostile_bodies.py), sessions that do not end, log lines that can be forged
(config/), one key for twenty requests, rendered text (modelhub/).
"""

import pytest

from annotation import exports, policy, tables
from annotation.models import Membership, Project
from annotation.services import projects, reviews
from modelhub.errors import ConflictError
from tests.annotation import (
    test_downloads,
    test_history,
    test_quality_pages,
)
from tests.annotation.api import test_managing
from tests.annotation.services import test_projects, test_reviews
from tests.builders import make_member

# What a test says when its guard is gone: a wrong value, or no refusal where one was expected.
Caught = (AssertionError, pytest.fail.Exception)


def test_without_the_escape_a_cell_is_a_formula(monkeypatch) -> None:
    monkeypatch.setattr(test_quality_pages, "cell_csv", lambda value: value)
    with pytest.raises(Caught):
        test_quality_pages.test_text_in_a_csv_is_never_a_formula("=1+1")


def test_without_the_check_one_reviews_ones_own(monkeypatch, project: Project) -> None:
    reviewer = make_member(project, "rev", Membership.Role.REVIEWER)
    monkeypatch.setattr(reviews, "RefusedError", type("NeverRaised", (Warning,), {}))
    monkeypatch.setattr(test_reviews, "RefusedError", ConflictError)
    with pytest.raises((*Caught, Warning)):
        test_reviews.test_nobody_reviews_their_own_work(project, reviewer)


def test_without_the_check_the_last_manager_leaves(monkeypatch, project: Project) -> None:
    monkeypatch.setattr(projects, "_manager_remains_check", lambda membership: None)
    with pytest.raises(Caught):
        test_projects.test_the_last_manager_stays(project)


def test_without_the_bar_an_annotator_raises_themselves(
    monkeypatch, project: Project, alice, bob, signed_in
) -> None:
    monkeypatch.setattr(policy, "role_reaches", lambda role, at_least: role is not None)
    with pytest.raises(Caught):
        test_managing.test_nobody_raises_themselves(project, alice, bob, signed_in)


def test_without_the_seal_a_browser_may_open_what_people_wrote(
    monkeypatch, project: Project, dana, signed_in
) -> None:
    monkeypatch.setattr(tables, "as_download", lambda response, name: None)
    monkeypatch.setattr(exports, "as_download", lambda response, name: None)
    with pytest.raises((*Caught, KeyError)):
        test_downloads.test_a_table_is_a_file(project, dana, signed_in)


def test_without_counting_slots_back_the_figures_drift(monkeypatch, project: Project) -> None:
    monkeypatch.setattr(reviews, "slot_return", lambda *, task_id: None)
    with pytest.raises(Caught):
        test_history.test_after_any_history_all_figures_agree(project, 1)
