"""The project's own documentation as pages: docs/*.md, read as they lie there.

Links between the files lead to their pages; one to a place that has no page keeps its words alone.
Plain Python.
"""

import itertools
import posixpath
import re
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

from modelhub.rendering import mathematics_add

FOLDER = Path(__file__).resolve().parent.parent / "docs"
IMAGES = (".png", ".svg", ".webp")
INDEX = "index"

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
mathematics_add(_MARKDOWN)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A document: its name is its path below docs/ without .md, its title its first heading."""

    name: str
    title: str
    html: str
    headings: tuple[tuple[str, str], ...]  # (anchor, text) of the second level


@lru_cache(maxsize=1)
def page_names() -> tuple[str, ...]:
    """Every page: those beside the index first, then folder by folder."""
    found = [path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.md")]
    return tuple(str(one) for one in sorted(found, key=lambda one: (len(one.parts), one)))


@lru_cache(maxsize=1)
def image_names() -> tuple[str, ...]:
    """Every picture, by its path below docs/."""
    found = [path for path in FOLDER.rglob("*") if path.suffix in IMAGES]
    return tuple(str(path.relative_to(FOLDER)) for path in sorted(found))


def page_read(name: str, *, root: str) -> Page | None:
    """The page of a name, its links below the address `root`; None where there is none."""
    if name not in page_names():
        return None
    path = FOLDER / f"{name}.md"
    return _rendered(name, path.stat().st_mtime_ns, root)


def pages_of(folder: str) -> list[tuple[str, str]]:
    """(name, title) of the pages in a folder below docs/; empty for docs/ itself."""
    names = [name for name in page_names() if posixpath.dirname(name) == folder]
    names.sort(key=lambda name: name != INDEX)
    return [(name, _title(name)) for name in names]


def folder_names() -> list[str]:
    """The folders that hold pages, docs/ itself first, as ""."""
    return list(dict.fromkeys(posixpath.dirname(name) for name in page_names()))


def _title(name: str) -> str:
    with (FOLDER / f"{name}.md").open() as file:
        first = next((line for line in file if line.startswith("# ")), f"# {name}")
    return first.removeprefix("# ").strip().replace("`", "")


@lru_cache(maxsize=128)
def _rendered(name: str, changed_ns: int, root: str) -> Page:
    """changed_ns: of the file, so that an edited one is read anew."""
    tokens = _MARKDOWN.parse((FOLDER / f"{name}.md").read_text())
    headings: list[tuple[str, str]] = []
    taken: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            words = _words(tokens[place + 1])
            anchor = _anchor(words, taken)
            token.attrSet("id", anchor)
            if token.tag == "h2":
                headings.append((anchor, words))
        elif token.type in ("fence", "code_block", "table_open"):
            token.attrSet("tabindex", "0")  # what scrolls sideways is reached by the keyboard too
        inline = token.children or []
        for inner, following in itertools.zip_longest(inline, inline[1:]):
            _lead(inner, following, posixpath.dirname(name), root)
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return Page(name=name, title=_title(name), html=html, headings=tuple(headings))


def _words(inline: Token) -> str:
    return "".join(one.content for one in inline.children or ())


def _anchor(words: str, taken: dict[str, int]) -> str:
    """A heading's anchor as code hosts make it, so that a link holds in both places."""
    anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
    taken[anchor] = taken.get(anchor, 0) + 1
    return anchor if taken[anchor] == 1 else f"{anchor}-{taken[anchor] - 1}"


def _lead(token: Token, following: Token | None, folder: str, root: str) -> None:
    """Let a link or a picture lead to the page or the picture it means. A link that is called by
    its file's name is called by the page's title."""
    name = {"link_open": "href", "image": "src"}.get(token.type)
    if name is None:
        return
    given = str(token.attrs[name])
    parts = urlsplit(given)
    if parts.scheme or given.startswith("#"):
        return
    target = posixpath.normpath(posixpath.join(folder, parts.path))
    page = target.removesuffix(".md")
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    if target in image_names():
        token.attrs[name] = f"{root}{target}"
    elif page in page_names():
        token.attrs[name] = f"{root}{page}/{fragment}"
        if following is not None and following.content == posixpath.basename(parts.path):
            following.content = _title(page)
    elif target in folder_names():
        token.attrs[name] = f"{root}{INDEX}/#{escape(target)}"
    else:
        del token.attrs[name]  # not a page of this site: the words stay
