"""What names or reaches a person: where it stands in a text, and the text without it.

E-mail addresses, public IP addresses, telephone numbers as they are written internationally and in
North America, Chinese mobile numbers and identity numbers. An identity number counts only with a
real date and check digit (GB 11643), an IP address only if it is a public one: an example's
192.168.0.1 names nobody.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

VERSION = "pii-1"


@dataclass(frozen=True, slots=True)
class Span:
    """Characters start to end (one past the last) of a text."""

    kind: str  # "email", "ip", "phone", "chinese_mobile" or "chinese_id"
    start: int
    end: int


REPLACEMENTS = {
    "email": "<email>",
    "ip": "<ip>",
    "phone": "<phone>",
    "chinese_mobile": "<phone>",
    "chinese_id": "<id>",
}
KINDS = tuple(REPLACEMENTS)

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"[A-Za-z]{2,24}(?![\w-])",
    re.ASCII,
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])", re.ASCII)
_CHINESE_ID = re.compile(r"(?<![0-9A-Za-z])[1-9]\d{16}[\dXx](?![0-9A-Za-z])", re.ASCII)
_CHINESE_MOBILE = re.compile(
    r"(?<![\d+.-])(?:\+?86[- ]?)?1[3-9]\d(?:\d{8}|[- ]\d{4}[- ]\d{4})(?![\d.]*\d)", re.ASCII
)
_PHONE = re.compile(
    r"(?<![\w.+])(?:\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,11}"
    r"|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-]|\.\d)",
    re.ASCII,
)
# What a line holds that may hold one, and few lines do: patterns are tried on those alone.
_NO_DIGITS = bytes(code for code in range(256) if not ord("0") <= code <= ord("9"))
_AT = re.compile("@")
_DIGIT_DOT = re.compile(r"\d\.\d", re.ASCII)
_COLONS = re.compile(r"::|:[0-9A-Fa-f]{1,4}:", re.ASCII)
_SEVEN_DIGITS = re.compile(r"\d(?:[ ().-]{0,3}\d){6}", re.ASCII)


def pii_find(text: str) -> list[Span]:
    """The spans in order; where two overlap the longer stays."""
    found: list[Span] = []

    def look(
        kind: str, pattern: re.Pattern[str], sign: re.Pattern[str], is_one: Callable[[str], bool]
    ) -> None:
        found.extend(
            Span(kind, *match.span())
            for start, end in _lines_holding(sign, text)
            for match in pattern.finditer(text, start, end)
            if is_one(match[0])
        )

    digits = len(text.encode().translate(None, _NO_DIGITS))
    if "@" in text:
        look("email", _EMAIL, _AT, _always)
    if digits >= 4:
        look("ip", _IPV4, _DIGIT_DOT, _is_public_ip)
    if ":" in text:
        look("ip", _IPV6, _COLONS, _is_public_ip)
    if digits >= 7 and _SEVEN_DIGITS.search(text):
        look("chinese_id", _CHINESE_ID, _SEVEN_DIGITS, _is_chinese_id)
        look("chinese_mobile", _CHINESE_MOBILE, _SEVEN_DIGITS, _always)
        look("phone", _PHONE, _SEVEN_DIGITS, _always)
    return _without_overlaps(found) if len(found) > 1 else found


def _lines_holding(sign: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each line with the sign in it."""
    end = 0
    while match := sign.search(text, end):
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.end())
        if end < 0:
            end = len(text)
        yield start, end


def pii_scrub(text: str, spans: Sequence[Span]) -> str:
    """The text with each span (in order, none overlapping) replaced by what it was: "<email>"."""
    parts, end = [], 0
    for span in spans:
        parts += [text[end : span.start], REPLACEMENTS[span.kind]]
        end = span.end
    return "".join([*parts, text[end:]])


def _without_overlaps(spans: list[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
        elif span.end - span.start > kept[-1].end - kept[-1].start:
            kept[-1] = span
    return kept


def _always(_text: str) -> bool:
    return True


def _is_public_ip(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _is_chinese_id(text: str) -> bool:
    """GB 11643-1999: six digits of a place, the date of birth, three of order, a check digit."""
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = sum(int(digit) * weight for digit, weight in zip(text[:17], weights, strict=True)) % 11
    return 1900 <= born.year <= 2100 and "10X98765432"[check] == text[17].upper()
