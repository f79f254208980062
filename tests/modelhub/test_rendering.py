"""What comes out of the renderer: an allow-list, whatever goes in."""

from html.parser import HTMLParser

import pytest

from modelhub.rendering import (
    MAX_MARKDOWN_CHARS,
    markdown_render,
    messages_render,
    plain_render,
    words_count,
)
from tests.pages.hostile import corpus

TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code"),
    *("ul", "ol", "li", "strong", "em", "s", "del", "a"),
    *("table", "thead", "tbody", "tr", "th", "td", "span", "div"),
}
BEACON = "http://beacon.invalid"


class Collector(HTMLParser):
    """Tags and attributes as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.found.append((tag, dict(attributes)))


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    collector = Collector()
    collector.feed(html)
    return collector.found


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(corpus(BEACON)) >= 120


@pytest.mark.parametrize("attack", corpus(BEACON))
def test_nothing_of_an_attack_is_left_but_words(attack: str) -> None:
    for tag, attributes in elements(markdown_render(attack)):
        assert tag in TAGS
        assert set(attributes) <= {"href", "title", "start", "rel", "target", "class", "tabindex"}
        if attributes.get("class") is not None:
            assert attributes["class"] == "math" or attributes["class"].startswith("language-")
        if tag == "a":
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"
        href = attributes.get("href")
        assert href is None or href.lower().startswith(("http://", "https://", "mailto:"))
    assert elements(plain_render(attack)) == [("pre", {"class": "plain"})]


def test_what_writers_use_is_shown() -> None:
    html = markdown_render(
        "# Title\n\n**bold** *slanted* ~~gone~~ `code`\nnext line\n\n3. three\n4. four\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nif a < b: pass\n```\n\n[site](https://a.example)"
    )
    for piece in (
        "<h1>Title</h1>",
        "<strong>bold</strong>",
        "<em>slanted</em>",
        "<s>gone</s>",
        "<code>code</code><br>",
        '<ol start="3">',
        "<td>1</td>",
        '<pre tabindex="0"><code class="language-py">if a &lt; b: pass',
        'href="https://a.example"',
    ):
        assert piece in html


def test_an_image_is_words_and_a_link_not_a_request() -> None:
    assert "<img" not in markdown_render("![cat](http://cats.example/cat.png)")
    assert "cat" in markdown_render("![cat](http://cats.example/cat.png)")


def test_a_text_past_the_cap_is_shown_as_it_was_written() -> None:
    text = "*a* <b>" + "x" * MAX_MARKDOWN_CHARS
    assert markdown_render(text).startswith('<pre class="plain">*a* &lt;b&gt;xxx')


def test_a_conversation_keeps_its_order_and_roles() -> None:
    shown = messages_render(
        [{"role": "user", "content": "*Hi*"}, {"role": "assistant", "content": "Yes?"}]
    )
    assert shown == [
        {"role": "user", "html": "<p><em>Hi</em></p>\n"},
        {"role": "assistant", "html": "<p>Yes?</p>\n"},
    ]


def test_words_are_counted_by_white_space() -> None:
    assert words_count("one two\n three ") == 3
    assert words_count("") == 0


WORDS = [
    ("one two\n three ", 3),
    ("", 0),
    ("a - b", 3),
    ("强化学习从人类反馈中学习。", 12),
    ("他说：“好”。", 3),
    ("用 GPT-4 训练", 4),
    ("用GPT-4训练v2。", 5),
    ("カタカナとひらがな", 9),
    ("スーパー、人々", 6),
    ("모델은 답을 쓴다.", 3),
    ("𠀀字", 2),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_each_letter_of_a_script_without_spaces_is_a_word(text: str, words: int) -> None:
    assert words_count(text) == words


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("so $x_1*y*2$ is", '<p>so <span class="math">$x_1*y*2$</span> is</p>\n'),
        ("\\(a<b\\)", '<p><span class="math">\\(a&lt;b\\)</span></p>\n'),
        ("$$\n= x\n- y\n$$", '<div class="math" tabindex="0">$$\n= x\n- y\n$$</div>'),
        ("\\[ a_b \\]", '<div class="math" tabindex="0">\\[ a_b \\]</div>'),
        ("$5 and $10, $5-$10", "<p>$5 and $10, $5-$10</p>\n"),
        ("`$x$` \\$5", "<p><code>$x$</code> $5</p>\n"),
    ],
)
def test_mathematics_is_kept_as_it_was_written_and_sums_of_money_are_none(
    text: str, html: str
) -> None:
    assert markdown_render(text) == html


def test_a_block_of_code_keeps_its_language_and_no_other_class() -> None:
    assert 'class="language-c++"' in markdown_render("```c++\nx\n```")
    assert markdown_render('```x"onload\nx\n```') == '<pre tabindex="0"><code>x\n</code></pre>\n'


def test_what_scrolls_sideways_can_be_reached_by_the_keyboard() -> None:
    html = markdown_render("```\nwide\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n$$\nx\n$$\n\nA line of $y$.")
    stops = [tag for tag, attributes in elements(html) if attributes.get("tabindex") == "0"]
    assert stops == ["pre", "table", "div"]
