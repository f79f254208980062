"""The strict parser: what it refuses would have been a 500, or a surprise, somewhere later."""

import io

import pytest
from rest_framework.exceptions import ParseError

from config.json_parser import StrictJSONParser


def parse(body: bytes) -> object:
    return StrictJSONParser().parse(io.BytesIO(body))


def test_ordinary_json_is_parsed() -> None:
    assert parse('{"a": [1, 2.5, "é\u2028", null, true]}'.encode()) == {
        "a": [1, 2.5, "é\u2028", None, True]
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 100000000000000000000}',
        b'"\\ud800"',
        b'"\\u0000"',
        b'{"\\u0000": 1}',
        b"[" * 100_000,
        b"[" * 40 + b"]" * 40,
        b"1" * 5000,
        "{}".encode("utf-16"),
        b'"' + b"x" * (4 << 20) + b'"',
        b"\xff\xfe",
    ],
    ids=[
        "empty", "cut off", "same key twice", "NaN", "infinite", "10^20", "lone surrogate", "NUL",
        "NUL in key", "100k deep", "40 deep", "5000 digits", "UTF-16", "over 4 MiB", "not UTF-8",
    ],
)  # fmt: skip
def test_hostile_json_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse(body)
