"""Owns log lines in JSON; they contain no user text except the request id that a client chose."""

import json
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from service.tracing import Record

_REQUESTS = "service.requests"


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; of an exception only its type and stack, never its message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["traceback"] = "".join(traceback.format_tb(record.exc_info[2]))
        line |= getattr(record, "fields", {})
        return json.dumps(line)  # in ASCII, which a stream of any encoding takes


def logging_config(level: str) -> dict[str, Any]:
    """A configuration for logging.config.dictConfig: requests to stdout, everything else to stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {
            name: {"class": "logging.StreamHandler", "formatter": "json", "stream": f"ext://sys.{name}"}
            for name in ("stdout", "stderr")
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), "handlers": [], "propagate": True},
            # Enabled by its own setting, whatever the log level.
            _REQUESTS: {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        },
    }


def request_lines(model: str) -> Callable[[Record], None]:
    """A function that logs one line per request; `model` is the name of the served model."""
    log = logging.getLogger(_REQUESTS)

    def write(record: Record) -> None:
        fields: dict[str, Any] = {
            "id": record.id,
            "method": record.method,
            "route": record.route or None,
            "status": record.status,
            "ms": _milliseconds(record.seconds),
            "model": model,
        }
        if record.work:
            fields["stages"] = {name: _milliseconds(took) for name, took in record.work.stages.items()}
            fields["questions"] = record.work.questions
            fields["tokens"] = record.work.tokens
        if record.code:
            fields["code"] = record.code
        if record.trace:
            fields["trace_id"], fields["span_id"] = record.trace.trace_id, record.trace.span_id
        log.info("%s %s %d", record.method, record.route or "-", record.status, extra={"fields": fields})

    return write


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
