"""What is offered on the page that launches a method can be launched."""

import pytest

from alignment.methods import METHODS
from alignment.selectors.launches import input_choices, project_resolve
from tests.builders import make_project, make_prompt, make_user

pytestmark = pytest.mark.django_db
OF_PROJECTS = [
    pytest.param(one, id=f"{method.name}-{one.role}")
    for method in METHODS.values()
    for one in method.inputs
    if one.of_project
]


@pytest.mark.parametrize("given", OF_PROJECTS)
def test_every_choice_of_a_projects_rows_names_them(given):
    project, manager = make_project(), make_user("manager", is_staff=True, is_superuser=True)
    for split in ("train", "validation", "held_out"):
        make_prompt(project, split=split)
    choices = input_choices(input=given, user=manager)
    assert len(choices) == len(given.of_project)
    for (reference, _), which in zip(choices, given.of_project, strict=True):
        found = project_resolve(input=given, reference=reference, user=manager)
        assert found == (project, which)
