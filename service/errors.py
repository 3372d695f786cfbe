"""Owns the failures the core can name; knows no HTTP, no request and no text of the user's."""


class QAError(Exception):
    """Base of every failure this project raises on purpose.

    The message is one sentence for a human: what, why, what to do. It never holds the user's
    question or context. `code` is for machines and stable between releases; `field` names the part
    of the input at fault (`"question"`, `"parameters.top_k"`), or is None.
    """

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class ArtifactError(QAError):
    """The model folder cannot be served: missing, altered, of another format, for another CPU."""

    code = "bad_artifact"


class SettingsError(QAError):
    """A setting, from the environment or a flag, has a value that cannot be used."""

    code = "bad_setting"


class InvalidInput(QAError):
    """A question, a context or a parameter breaks the contract of the engine."""

    code = "invalid_input"


class UnknownModel(QAError):
    """A request names a model, or a version of it, that is not the one here."""

    code = "unknown_model"


class Overloaded(QAError):
    """The queue is full; a retry after `retry_after` seconds may be taken."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(QAError):
    """The model is still loading, or the process is draining before it stops."""

    code = "not_ready"


class DeadlineExceeded(QAError):
    """The time allowed for a request passed before its answer was there."""

    code = "deadline_exceeded"


class NotHttp(QAError):
    """What came over a connection is not a request."""

    code = "bad_request"


class TooSlow(QAError):
    """A request did not arrive whole in the time allowed for that."""

    code = "too_slow"


class Unauthorized(QAError):
    """No API key, or a wrong one, where one is asked for; `presented` tells which."""

    code = "unauthorized"

    def __init__(self, message: str, *, presented: bool) -> None:
        super().__init__(message)
        self.presented = presented
