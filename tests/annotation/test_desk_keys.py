"""The keys of the annotator's page: which can be changed, and what is refused with which words."""

import re
from pathlib import Path

import pytest
from django.conf import settings

from annotation.desk_keys import ACTIONS, DEFAULTS, keys_changed, keys_read
from modelhub.errors import ApplicationError


def test_a_changed_key_stands_beside_the_others() -> None:
    keys = keys_read({"compare": "c", "fold": "Z"})
    assert (keys["compare"], keys["fold"], keys["undo"]) == ("c", "z", "u")
    assert keys_changed(keys) == {"compare": "c", "fold": "z"}


def test_two_actions_swap_their_keys() -> None:
    keys = keys_read({"next": "k", "previous": "j"})
    assert (keys["next"], keys["previous"]) == ("k", "j")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"compare": "u"}, "“U” is the key of “undo” already. Give that another key first."),
        ({"compare": "7"}, "“7” cannot be “compare”: digits choose by number."),
        ({"compare": "B"}, "“B” cannot be “compare”: A and B mark an answer."),
        ({"compare": "Enter"}, "A key is one character that can be seen."),
        ({"compare": " "}, "A key is one character that can be seen."),
        ({"compare": ""}, "A key is one character that can be seen."),
        ({"dance": "z"}, "There is no action 'dance'."),
    ],
)
def test_what_is_in_the_way_is_refused_with_a_sentence(changed, words) -> None:
    with pytest.raises(ApplicationError, match=re.escape(words)):
        keys_read(changed)


def test_the_page_comes_with_keys_that_are_not_in_each_others_way() -> None:
    assert keys_read({}) == DEFAULTS
    assert len(set(DEFAULTS.values())) == len(ACTIONS)


def test_every_key_that_the_page_writes_is_one_of_an_action() -> None:
    """A key cap that names no action would go on showing a key that somebody has changed."""
    told = set()
    for path in (Path(settings.BASE_DIR) / "templates" / "annotation").rglob("*.html"):
        told |= set(re.findall(r'data-action="([a-z]+)"', path.read_text()))
    assert told == set(DEFAULTS)
