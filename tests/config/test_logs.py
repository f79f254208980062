"""S32: one event is one line, whatever a person sent that is repeated in it."""

import io
import json
import logging

import pytest

from config import logs
from config.logs import JsonFormatter, LineFormatter, format_of, logging_config

HOSTILE = [
    "two\r\nlines",
    "a\rb\nc\x0bd\x0ce",
    "\x1b[2J\x1b[31mred",
    "next\x85line \u2028 \u2029",
    "\u202eturned round",
    "\x00\x07\x08",
    "%s %n %(message)s {0} {level}",
    '"}\n{"level": "ERROR", "message": "forged"}',
    "\ud800 alone",
    "m" * 1_000_000,
]


@pytest.fixture
def heard() -> tuple[logging.Logger, io.StringIO, logging.Handler]:
    """A logger that is nobody's child, so that no other handler hears it."""
    stream, logger = io.StringIO(), logging.Logger("tests.heard")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    return logger, stream, handler


def told(logger: logging.Logger) -> int:
    """Log every hostile text as the message and as a value of one, with and without an error."""
    for text in HOSTILE:
        logger.warning(text)
        logger.warning("value %s of %r", text, text)
        logger.warning("too few %s %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed: %s", text)
    return 4 * len(HOSTILE)


def test_a_line_of_json_is_an_event(heard) -> None:
    logger, stream, handler = heard
    handler.setFormatter(JsonFormatter())
    events = told(logger)
    lines = stream.getvalue().splitlines()  # at every end of line that Unicode knows
    assert len(lines) == events
    for line in lines:
        event = json.loads(line)
        assert event["level"] in {"WARNING", "ERROR"}
        assert event["logger"] == "tests.heard"
        assert len(event["message"]) < logs.MAX_CHARS + 100
        assert line.isascii()
    assert json.loads(lines[0])["message"] == HOSTILE[0]  # nothing of it is lost
    assert "ValueError: two" in json.loads(lines[3])["error"]


def test_a_line_to_read_has_no_second_one_but_of_its_traceback(heard) -> None:
    logger, stream, handler = heard
    handler.setFormatter(LineFormatter())
    events = told(logger)
    lines = stream.getvalue().splitlines()
    heads = [line for line in lines if not line.startswith("    ")]
    assert len(heads) == events
    assert all(" tests.heard: " in line for line in heads)
    assert "\x1b" not in stream.getvalue()
    assert "two\\r\\nlines" in heads[0]


def test_without_escaping_a_value_forges_an_event(heard) -> None:
    """The mutant: Python's own formatter, as it is set up most often."""
    logger, stream, handler = heard
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    handler.handleError = lambda record: None
    events = told(logger)
    assert len(stream.getvalue().splitlines()) > events


def test_production_logs_json_and_a_terminal_lines() -> None:
    assert format_of(given="", production=True) == "json"
    assert format_of(given="", production=False) == "line"
    assert format_of(given="line", production=True) == "line"
    with pytest.raises(ValueError, match="RONDO_LOG_FORMAT"):
        logging_config(level="INFO", format="xml")
