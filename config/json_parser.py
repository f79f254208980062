"""The strict JSON parser of every API view.

Apart from config/api.py because REST framework loads its parsers while it is itself being imported.
"""

from collections.abc import Mapping
from typing import IO, Any

from rest_framework import exceptions
from rest_framework.parsers import BaseParser

from modelhub.ml.records import json_strict

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_INTEGER = 2**53


class StrictJSONParser(BaseParser):
    """JSON without what a database or a later reader would choke on.

    Refuses (400): more than 4 MiB, more than 32 levels, NUL, lone surrogates, the same key twice,
    NaN and infinities, integers beyond 2⁵³.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = stream.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise exceptions.ParseError(f"The body is larger than {MAX_BYTES} bytes.")
        try:
            value = json_strict(body)
        except ValueError as error:
            raise exceptions.ParseError(f"Not acceptable JSON: {error}") from error
        _value_check(value, depth=0)
        return value


def _value_check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise exceptions.ParseError(f"Nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str) and "\x00" in value:
        raise exceptions.ParseError("A text holds a NUL character.")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise exceptions.ParseError("A whole number is beyond 2^53.")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise exceptions.ParseError("A number is too large.")
    if isinstance(value, dict):
        for key, item in value.items():
            _value_check(key, depth + 1)
            _value_check(item, depth + 1)
    if isinstance(value, list):
        for item in value:
            _value_check(item, depth + 1)
