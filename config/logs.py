"""What the processes say: one event a line, whatever a person sent that is repeated in it.

Apart from config/settings.py because gunicorn's own log is set up before Django is.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

FORMATS = ("json", "line")
MAX_CHARS = 8000  # of one message; a traceback has as many for itself
# Control characters, and what some reader takes for the end of a line or turns the line round.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class JsonFormatter(logging.Formatter):
    """{"at", "level", "logger", "message"}, and "error" with a traceback, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
        }
        if record.exc_info:
            event["error"] = shortened(self.formatException(record.exc_info), from_end=True)
        return json.dumps(event)


class LineFormatter(logging.Formatter):
    """A line to read; control characters are shown, and a traceback stands under it, set in."""

    def format(self, record: logging.LogRecord) -> str:
        at = self.formatTime(record)
        line = f"{at} {record.levelname} {record.name}: {shown(message_of(record))}"
        if record.exc_info:
            for told in self.formatException(record.exc_info).split("\n"):
                line += f"\n    {shown(told)}"
        return line


def message_of(record: logging.LogRecord) -> str:
    """A record's message, shortened; where its values do not fit its format, both as they are."""
    try:
        return shortened(record.getMessage())
    except Exception:  # a log line never stops what it is about
        return shortened(f"{record.msg!s} {record.args!r}")


def shortened(text: str, *, from_end: bool = False) -> str:
    left_out = len(text) - MAX_CHARS
    if left_out <= 0:
        return text
    if from_end:
        return f"({left_out} characters more) …{text[-MAX_CHARS:]}"
    return f"{text[:MAX_CHARS]}… ({left_out} characters more)"


def shown(text: str) -> str:
    r"""Control characters as one writes them: \n, \x1b."""
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def logging_config(*, level: str, format: str) -> dict[str, Any]:
    """The logging of every process. Raises ValueError for a format that there is not."""
    if format not in FORMATS:
        raise ValueError(f"RONDO_LOG_FORMAT is one of {', '.join(FORMATS)}, not {format!r}")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {"()": "config.logs.JsonFormatter"},
            "line": {"()": "config.logs.LineFormatter"},
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": format}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "axes": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
            # Django's own handlers would mail and print what goes to the console already.
            "django": {"handlers": []},
            "gunicorn.error": {"handlers": ["console"], "propagate": False},
        },
    }


def format_of(*, given: str, production: bool) -> str:
    """JSON for a collector of logs in production, lines for a person at a terminal."""
    return given or ("json" if production else "line")
