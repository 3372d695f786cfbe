"""Owns the server's text log, which contains client-controlled text at no level; knows no route."""

import logging
from datetime import timedelta
from http import HTTPMethod
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger

from service.problems import places
from service.tracing import ID_HEADER, current

# Client address, time, method, path, protocol, status, bytes, milliseconds, id. The query, referer, user
# agent and user name are left out, since clients choose their text.
ACCESS_FORMAT = f'%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(M)s %({{{ID_HEADER.lower()}}}o)s'
# Statuses for which the path is arbitrary text: it has no route, or the request could not be parsed.
_UNROUTED = {"400", "404", "408", "414", "417", "431", "501"}


class Log(Logger):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's logger without exception messages, many of which quote the request."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.addFilter(_name_exceptions)

    def atoms(
        self, resp: Any, req: Any, environment: dict[str, Any], request_time: timedelta
    ) -> dict[str, Any]:
        """The fields of an access log line; unknown paths and methods are a dash.

        The duration is replaced: gunicorn's `request_time` is taken from the wall clock, which may jump.
        """
        atoms: dict[str, Any] = super().atoms(resp, req, environment, request_time)
        atoms["M"] = round(current.get().seconds * 1000)
        if str(atoms["s"]) in _UNROUTED:
            atoms["U"] = "-"
        if atoms["m"] not in HTTPMethod.__members__:
            atoms["m"] = "-"
        return atoms


def _name_exceptions(record: logging.LogRecord) -> bool:
    """Reduce exceptions to their type and stack; keeps every record."""
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = "%s", (places(record.exc_info[1]),)
        record.exc_info = None
    elif isinstance(record.args, tuple):
        record.args = tuple(
            type(value).__name__ if isinstance(value, BaseException) else value for value in record.args
        )
    return True
