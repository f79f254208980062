"""Text that people and models wrote → HTML that is safe to show. Plain Python.

Two walls, either of which would do: Markdown is parsed with raw HTML off, and what comes out passes
an allow-list of tags, attributes and URL schemes. Nothing rendered can run, style the page, submit
a form, or make the browser fetch anything: an image in an answer would tell its host who reads it,
and when. The content policy is the third wall.
"""

from collections.abc import Mapping
from html import escape

import nh3
from markdown_it import MarkdownIt

# Past this the parser's worst cases take seconds; what is longer is shown as it was written.
MAX_MARKDOWN_CHARS = 20_000

_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("ul", "ol", "li", "blockquote", "pre", "code"),
    *("strong", "em", "s", "del", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_SCHEMES = {"http", "https", "mailto"}


def _attribute_keep(tag: str, name: str, value: str) -> str | None:
    """Drop relative links: an answer may point out of Rondo, never at its own pages."""
    if name == "href" and value.split(":", 1)[0].strip().lower() not in _SCHEMES:
        return None
    return value


_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes={"a": {"href", "title"}, "ol": {"start"}},
    url_schemes=_SCHEMES,
    attribute_filter=_attribute_keep,
    # Links leave the page in a tab of their own that learns nothing about this one.
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
)
_MARKDOWN = MarkdownIt(
    "js-default", {"html": False, "linkify": False, "typographer": False, "breaks": True}
).disable("image")  # so that `![alt](address)` stays readable, as an exclamation mark and a link


def markdown_render(text: str) -> str:
    """Safe HTML of a Markdown text; one above MAX_MARKDOWN_CHARS comes back as plain `<pre>`."""
    if len(text) > MAX_MARKDOWN_CHARS:
        return plain_render(text)
    return _CLEANER.clean(_MARKDOWN.render(text))


def plain_render(text: str) -> str:
    """The text as it is, line by line, with every character that HTML knows escaped."""
    return f'<pre class="plain">{escape(text)}</pre>'


def messages_render(messages: list[Mapping[str, str]]) -> list[dict[str, str]]:
    """A conversation as [{"role", "html"}], in its order."""
    return [
        {"role": str(message["role"]), "html": markdown_render(str(message["content"]))}
        for message in messages
    ]


def words_count(text: str) -> int:
    """Words by white space: what the page shows as an answer's length."""
    return len(text.split())
