"""Text that people and models wrote → HTML that is safe to show. Plain Python.

Two walls, either of which would do: Markdown is parsed with raw HTML off, and what comes out passes
an allow-list of tags, attributes and URL schemes. Nothing rendered can run, style the page, submit
a form, or make the browser fetch anything: an image in an answer would tell its host who reads it,
and when. The content policy is the third wall.

Mathematics ($…$, $$…$$, \\(…\\), \\[…\\]) and the language of a block of code keep a class; their
looks are the page's affair. Without its script the mathematics is read as it was written.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

# Past this the parser's worst cases take seconds; what is longer is shown as it was written.
MAX_MARKDOWN_CHARS = 20_000

_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("ul", "ol", "li", "blockquote", "pre", "code"),
    *("strong", "em", "s", "del", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
    *("span", "div"),
}
_CLASSES = {
    "code": re.compile(r"language-[a-z0-9+#_.-]{1,24}", re.IGNORECASE),
    "span": re.compile(r"math"),
    "div": re.compile(r"math"),
}
_SCHEMES = {"http", "https", "mailto"}
# Code, tables and displayed formulas (the only divs) may be wider than the page, and then scroll
# sideways by themselves: what scrolls can be reached by the keyboard too (WCAG 2.1.1).
_WIDE_TAGS = ("pre", "table", "div")
_SCROLLED = {"tabindex": "0"}


def _attribute_keep(tag: str, name: str, value: str) -> str | None:
    """Drop relative links, which point at Rondo's own pages, and every class but ours."""
    if name == "class":
        return value if _CLASSES[tag].fullmatch(value) else None
    if name == "href" and value.split(":", 1)[0].strip().lower() not in _SCHEMES:
        return None
    return value


_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes={"a": {"href", "title"}, "ol": {"start"}, **{tag: {"class"} for tag in _CLASSES}},
    url_schemes=_SCHEMES,
    attribute_filter=_attribute_keep,
    # Links leave the page in a tab of their own that learns nothing about this one.
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}, **dict.fromkeys(_WIDE_TAGS, _SCROLLED)},
)
_MARKDOWN = MarkdownIt(
    "js-default", {"html": False, "linkify": False, "typographer": False, "breaks": True}
).disable("image")  # so that `![alt](address)` stays readable, as an exclamation mark and a link

# Opener, closer, whether it stands on a line of its own. The longer opener first.
_MATH = [("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False)]
_MATH_MAX_CHARS = 4000


def _math_inline(state: StateInline, silent: bool) -> bool:
    """A formula in a line. A single $ opens before a non-space, closes after one and not before a
    digit (Pandoc's rule), so that sums of money stay what they are."""
    for opener, closer, display in _MATH:
        if not state.src.startswith(opener, state.pos):
            continue
        start = state.pos + len(opener)
        end = state.src.find(closer, start, start + _MATH_MAX_CHARS)
        tex = state.src[start:end]
        if end < 0 or not tex.strip():
            continue
        after = state.src[end + len(closer) : end + len(closer) + 1]
        if opener == "$" and (tex[0].isspace() or tex[-1].isspace() or after.isdigit()):
            continue
        if not silent:
            token = state.push("math", "div" if display else "span", 0)
            token.content, token.markup = tex, opener
        state.pos = end + len(closer)
        return True
    return False


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A displayed formula over lines of its own, whatever Markdown would make of those lines."""
    text = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    pair = next(((o, c) for o, c, display in _MATH if display and text.startswith(o)), None)
    if pair is None:
        return False
    opener, closer = pair
    first = state.bMarks[start] + state.tShift[start] + len(opener)
    stop = state.src.find(closer, first, first + _MATH_MAX_CHARS)
    if stop < 0:
        return False
    last = next((line for line in range(start, end) if stop <= state.eMarks[line]), None)
    if last is None or state.src[stop + len(closer) : state.eMarks[last]].strip():
        return False
    if silent:
        return True
    token = state.push("math", "div", 0)
    token.block, token.content, token.markup = True, state.src[first:stop], opener
    state.line = last + 1
    return True


def _math_render(
    _: RendererProtocol, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    # In a paragraph a div would end it: what is displayed says so by its own delimiters.
    tag = token.tag if token.block else "span"
    closer = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}[token.markup]
    written = f"{token.markup}{token.content}{closer}"
    return f'<{tag} class="math">{escape(written)}</{tag}>'


def mathematics_add(markdown: MarkdownIt) -> None:
    """Let a parser know mathematics, as elements of class `math`."""
    markdown.inline.ruler.before("escape", "math", _math_inline)
    markdown.block.ruler.before("code", "math", _math_block, {"alt": ["paragraph", "reference"]})
    markdown.add_render_rule("math", _math_render)


mathematics_add(_MARKDOWN)


def markdown_render(text: str) -> str:
    """Safe HTML of a Markdown text; one above MAX_MARKDOWN_CHARS comes back as plain `<pre>`."""
    if len(text) > MAX_MARKDOWN_CHARS:
        return plain_render(text)
    return (_rendered_again if len(text) <= _KEPT_MAX_CHARS else _rendered)(text)


def _rendered(text: str) -> str:
    return _CLEANER.clean(_MARKDOWN.render(text))


# The same answers are shown to several people within minutes, and guidelines with every task.
_KEPT_MAX_CHARS = 8_000
_rendered_again = lru_cache(maxsize=1024)(_rendered)


def plain_render(text: str) -> str:
    """The text as it is, line by line, with every character that HTML knows escaped."""
    return f'<pre class="plain">{escape(text)}</pre>'


def messages_render(messages: list[Mapping[str, str]]) -> list[dict[str, str]]:
    """A conversation as [{"role", "html"}], in its order."""
    return [
        {"role": str(message["role"]), "html": markdown_render(str(message["content"]))}
        for message in messages
    ]


# Letters of scripts that are written without spaces: Han and Kana. Hangul has spaces. The same
# stand in annotation/static/annotation/reading.js, which counts what is being written.
_LONE = (
    "\u3005\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_LONE_LETTER = re.compile(f"[{_LONE}]")
_LETTER = re.compile(r"\w")


def words_count(text: str) -> int:
    """What the page shows as an answer's length: words by white space, and each letter of a script
    that is written without spaces. Between such letters marks alone are no word.
    """
    if not _LONE_LETTER.search(text):
        return len(text.split())
    count = 0
    for piece in text.split():
        between = _LONE_LETTER.split(piece)  # one more than there are such letters
        alone = len(between) - 1
        count += alone + sum(bool(_LETTER.search(part)) for part in between) if alone else 1
    return count
