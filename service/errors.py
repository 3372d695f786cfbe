"""Owns the exceptions of the core; knows no HTTP and no user text."""


class QAError(Exception):
    """Base class of all expected errors.

    The message is one sentence for people: what failed, why, and what to do. It never contains the
    user's question or context. `code` is for programs and stable between releases; `field` names the
    invalid part of the input (`"question"`, `"parameters.top_k"`), or is None.
    """

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class ArtifactError(QAError):
    """The model folder cannot be served: missing, modified, of another format, or for another CPU."""

    code = "bad_artifact"


class SettingsError(QAError):
    """A setting, from the environment or a flag, has an invalid value."""

    code = "bad_setting"


class InvalidInput(QAError):
    """A question, a context or a parameter is invalid."""

    code = "invalid_input"


class UnknownModel(QAError):
    """A request names a model or version other than the served one."""

    code = "unknown_model"


class Overloaded(QAError):
    """The queue is full; a retry after `retry_after` seconds may succeed."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(QAError):
    """The model is still loading, or the process is draining before it stops."""

    code = "not_ready"


class DeadlineExceeded(QAError):
    """The deadline of a request passed before it was answered."""

    code = "deadline_exceeded"


class NotHttp(QAError):
    """The bytes received on a connection are not an HTTP request."""

    code = "bad_request"


class TooSlow(QAError):
    """A request was not received completely in time."""

    code = "too_slow"


class Unauthorized(QAError):
    """A required API key is missing, or wrong if `presented`."""

    code = "unauthorized"

    def __init__(self, message: str, *, presented: bool) -> None:
        super().__init__(message)
        self.presented = presented
