"""The site's words in Simplified Chinese: whole, compiled, and chosen by the person."""

import ast
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


def gettext_calls(path: Path) -> set[str]:
    """What a module marks, by gettext, gettext_lazy (also as _) or gettext_noop."""
    marks = ("gettext", "gettext_lazy", "gettext_noop", "_")
    return {
        call.args[0].value
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in marks
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_every_word_that_modules_mark_is_translated() -> None:
    known = entries("django")
    marked = {
        word
        for app in ("annotation", "alignment", "modelhub")
        for path in (Path(settings.BASE_DIR) / app).rglob("*.py")
        for word in gettext_calls(path)
    }
    assert len(marked) > 350
    assert not {word for word in marked if not known.get(word.replace('"', '\\"'), known.get(word))}


def test_every_sentence_that_templates_fill_in_is_translated() -> None:
    known = entries("django")
    block = re.compile(r"{% blocktranslate[^%]*%}(.*?){% (?:plural|endblocktranslate) %}", re.S)
    marked = {
        re.sub(r"{{ (\w+) }}", r"%(\1)s", text.replace("%", "%%"))
        for path in TEMPLATES.rglob("*.html")
        for text in block.findall(path.read_text())
    }
    assert len(marked) > 120
    assert not {word for word in marked if not known.get(word)}


UNMARKED = re.compile(r">\s*([A-Z][a-z]+(?: [a-z’]+)*[.:]?)\s*<")
CODE = re.compile(r"<(pre|code|kbd|script|style)\b.*?</\1>|{#.*?#}", re.S)


def test_no_template_says_a_word_that_is_not_marked() -> None:
    """But for the wordmark, and the page that has to work when nothing else does."""
    found = {
        (path.name, word)
        for path in TEMPLATES.rglob("*.html")
        if path.name != "500.html" and "admin" not in path.parts
        for word in UNMARKED.findall(CODE.sub("", path.read_text()))
        if word not in ("Rondo", "Parquet")
    }
    assert not found


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


@pytest.mark.parametrize("spoken", ["en", "zh-CN"])
def test_each_language_is_named_in_itself(db, spoken: str) -> None:
    page = Client().get("/sign-in/", headers={"accept-language": spoken}).content.decode()
    named = re.findall(r'name="language" value="([\w-]+)" lang="\1"[^>]*>([^<]+)<', page)
    assert named == [("en", "English"), ("zh-hans", "简体中文")]


def test_the_scripts_words_come_in_that_language(db, alice) -> None:
    client = Client()
    client.force_login(alice)
    words = client.get("/words.js", headers={"accept-language": "zh-CN"}).content.decode()
    assert "\\u4e3a\\u60a8\\u4fdd\\u7559" in words or "为您保留" in words
    assert "为您保留" not in client.get("/words.js").content.decode()
