import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhub.ml.corpora import pii
from modelhub.ml.corpora.pii import Span, pii_find, pii_scrub


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("Write to ann.b+c@mail.example.co.uk.", "email", "ann.b+c@mail.example.co.uk"),
        ("请发邮件到li@qq.com，谢谢", "email", "li@qq.com"),
        ("from 8.8.8.8, port 53", "ip", "8.8.8.8"),
        ("at 2001:4860:4860::8888 now", "ip", "2001:4860:4860::8888"),
        ("电话13812345678。", "chinese_mobile", "13812345678"),
        ("手机 +86 138-1234-5678", "chinese_mobile", "+86 138-1234-5678"),
        ("身份证11010519491231002X号", "chinese_id", "11010519491231002X"),
        ("call (212) 555-0123 today", "phone", "(212) 555-0123"),
        ("call +44 20 7946 0958 today", "phone", "+44 20 7946 0958"),
    ],
)
def test_what_reaches_a_person_is_found(text: str, kind: str, found: str) -> None:
    (span,) = pii_find(text)
    assert (span.kind, text[span.start : span.end]) == (kind, found)


@pytest.mark.parametrize(
    "text",
    [
        "192.168.0.1 and 127.0.0.1 are nobody's",
        "version 1.2.3.4.5 of 999.1.1.1",
        "user@host without a domain, @decorator",
        "110105194912310021 has a wrong check digit",
        "110105194913310021 has a thirteenth month",
        "3.13812345678 is a number, 1381234567890 too",
        "in 1984-2024, pages 100-200, ISBN 978-3-16-148410-0",
        "std::vector<int>::size and 12:30:45",
    ],
)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert pii_find(text) == []


def test_each_span_becomes_what_it_was() -> None:
    text = "a@b.com, 13812345678, 11010519491231002X; 8.8.8.8"
    assert pii_scrub(text, pii_find(text)) == "<email>, <phone>, <id>; <ip>"


def found_plainly(text: str) -> list[Span]:
    """Every pattern tried on the whole text."""
    kinds = {
        "email": [pii._EMAIL],
        "ip": [pii._IPV4, pii._IPV6],
        "chinese_id": [pii._CHINESE_ID],
        "chinese_mobile": [pii._CHINESE_MOBILE],
        "phone": [pii._PHONE],
    }
    is_one = {"ip": pii._is_public_ip, "chinese_id": pii._is_chinese_id}
    spans = [
        Span(kind, *match.span())
        for kind, patterns in kinds.items()
        for pattern in patterns
        for match in pattern.finditer(text)
        if is_one.get(kind, pii._always)(match[0])
    ]
    return pii._without_overlaps(spans)


TRUE = st.sampled_from(
    [
        "ann.b+c@mail.example.co.uk",
        "8.8.8.8",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "13812345678",
        "+86 138-1234-5678",
        "11010519491231002X",
        "(212) 555-0123",
        "+44 (20) 7946-0958",
        "+1 2.3 4-5 6.7",
        "+1 (2) 345678",
        "212-555-0123",
    ]
)
NOISE = st.text("0127aXx+-(). @:\n\r,他é٣", max_size=12)


@settings(deadline=None, max_examples=300)
@given(parts=st.lists(st.one_of(TRUE, NOISE), max_size=7))
@example(parts=["+1", "\n", "8.8.8.8", "\n", ".1"])
def test_looking_at_lines_with_a_sign_finds_what_looking_at_all_finds(parts: list[str]) -> None:
    text = "".join(parts)
    assert pii_find(text) == found_plainly(text)
