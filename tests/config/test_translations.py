"""The site's words in Simplified Chinese: whole, compiled, and chosen by the person."""

import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

LOCALE = Path(settings.LOCALE_PATHS[0]) / "zh_Hans" / "LC_MESSAGES"
TEMPLATES = Path(settings.BASE_DIR) / "templates"
TRANSLATED = re.compile(r"""{% translate (?:"([^"]+)"|'([^']+)') %}""")
IN_SCRIPTS = re.compile(r"""\bn?gettext\(\s*"((?:[^"\\]|\\.)+)\"""")


def entries(name: str) -> dict[str, str]:
    """msgid → the first msgstr of a catalogue, each on one line as msgcat writes it."""
    text = subprocess.run(
        ["msgcat", "--no-wrap", str(LOCALE / f"{name}.po")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {}
    for block in text.split("\n\n")[1:]:
        said = re.search(r'^msgid "(.*)"$', block, re.M)
        told = re.search(r'^msgstr(?:\[0\])? "(.*)"$', block, re.M)
        assert said and told, block
        found[said[1].replace('\\"', '"')] = told[1]
    return found


def test_every_word_that_templates_mark_is_translated() -> None:
    known = entries("django")
    marked = {
        first or second
        for path in TEMPLATES.rglob("*.html")
        for first, second in TRANSLATED.findall(path.read_text())
    }
    assert len(marked) > 150
    assert not {word for word in marked if not known.get(word)}


def test_every_word_that_scripts_mark_is_translated() -> None:
    known = entries("djangojs")
    scripts = (Path(settings.BASE_DIR) / "annotation" / "static" / "annotation").rglob("*.js")
    marked = {word for path in scripts for word in IN_SCRIPTS.findall(path.read_text())}
    assert len(marked) > 120
    assert not {word for word in marked if not known.get(word)}


@pytest.mark.parametrize("name", ["django", "djangojs"])
def test_the_compiled_catalogue_is_that_of_the_words(name: str, tmp_path: Path) -> None:
    made = tmp_path / f"{name}.mo"
    subprocess.run(
        ["msgfmt", "--check-format", "-o", str(made), str(LOCALE / f"{name}.po")],
        check=True,
        capture_output=True,
    )
    assert made.read_bytes() == (LOCALE / f"{name}.mo").read_bytes()


@pytest.mark.parametrize("name", ["django", "djangojs"])
def test_a_translation_fills_in_the_same_values(name: str) -> None:
    for said, told in entries(name).items():
        places = re.compile(r"%\((\w+)\)s|%s")
        assert sorted(places.findall(said)) == sorted(places.findall(told)), said


def test_the_browsers_language_is_spoken_and_another_may_be_chosen(db) -> None:
    client = Client()
    page = client.get("/sign-in/", headers={"accept-language": "zh-CN,zh;q=0.9"})
    assert '<html lang="zh-hans">' in page.content.decode()
    assert "登录" in page.content.decode()
    assert 'lang="en"' in client.get("/sign-in/").content.decode()
    reply = client.post("/language/", {"language": "zh-hans", "next": "/sign-in/"})
    assert reply.status_code == 302
    assert "登录" in client.get("/sign-in/").content.decode()


def test_the_scripts_words_come_in_that_language(db, alice) -> None:
    client = Client()
    client.force_login(alice)
    words = client.get("/words.js", headers={"accept-language": "zh-CN"}).content.decode()
    assert "\\u4e3a\\u60a8\\u4fdd\\u7559" in words or "为您保留" in words
    assert "为您保留" not in client.get("/words.js").content.decode()
