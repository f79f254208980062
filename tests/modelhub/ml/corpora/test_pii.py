import pytest

from modelhub.ml.corpora.pii import pii_find, pii_scrub


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
