"""Owns what the server writes to its log: at no level a text of the client's; knows no request's content."""

import logging
from datetime import timedelta
from http import HTTPMethod
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger

from service.problems import places
from service.tracing import ID_HEADER, current

# Client address, time, method, path, protocol, status, bytes, milliseconds, id. Query, referer, user agent
# and user name are the client's own text.
ACCESS_FORMAT = f'%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(M)s %({{{ID_HEADER.lower()}}}o)s'
# With these the path is the client's own text: nothing is there, or the request could not be read.
_NOWHERE = {"400", "404", "408", "414", "417", "431", "501"}


class Log(Logger):  # type: ignore[misc] # gunicorn has no type information
    """gunicorn's log without the messages of exceptions, for many of those quote what the client sent."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.addFilter(_name_exceptions)

    def atoms(
        self, resp: Any, req: Any, environment: dict[str, Any], request_time: timedelta
    ) -> dict[str, Any]:
        """The parts of a line of the access log; a path or method that is not served is a dash.

        gunicorn's `request_time` is that of the clock of the day, which may be set meanwhile.
        """
        atoms: dict[str, Any] = super().atoms(resp, req, environment, request_time)
        atoms["M"] = round(current.get().seconds * 1000)
        if str(atoms["s"]) in _NOWHERE:
            atoms["U"] = "-"
        if atoms["m"] not in HTTPMethod.__members__:
            atoms["m"] = "-"
        return atoms


def _name_exceptions(record: logging.LogRecord) -> bool:
    """Reduce exceptions to their types and the lines they passed; drops no record."""
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = "%s", (places(record.exc_info[1]),)
        record.exc_info = None
    elif isinstance(record.args, tuple):
        record.args = tuple(
            type(value).__name__ if isinstance(value, BaseException) else value for value in record.args
        )
    return True
