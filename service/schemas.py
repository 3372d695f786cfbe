"""Owns the JSON of requests and responses; knows no HTTP status and no model."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from service.engine.parameters import Parameters
from service.errors import InvalidInput, QAError

if TYPE_CHECKING:  # the master process, which tells failures, must not load the engine
    from service.engine.answering import Answer

# The fields of Parameters, with unknown names refused: one list, not two. None is the default of each.
_ParametersBody: Any = msgspec.defstruct(
    "ParametersBody",
    [(f.name, cast(Any, f.type) | None, None) for f in dataclasses.fields(Parameters)],
    forbid_unknown_fields=True,
    frozen=True,
)


# Names of unknown fields are told up to this length.
_LONGEST_NAME = 64


class InvalidJson(QAError):
    """The body is not JSON."""

    code = "invalid_json"


class _Item(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    question: str
    context: str


class _Call(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`{"inputs": ..., "parameters": ...}` or `{"question": ..., "context": ...}`."""

    inputs: _Item | list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    question: str | msgspec.UnsetType = msgspec.UNSET
    context: str | msgspec.UnsetType = msgspec.UNSET
    parameters: _ParametersBody | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One valid item of a request."""

    question: str
    context: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Request:
    """A request's items in order, each valid or the reason why not; `many` asks for a list."""

    items: Sequence[Question | InvalidInput]
    many: bool


def parse_request(body: bytes, *, max_items: int, max_top_k: int) -> Request:
    """Read a request body.

    A list, or `inputs` with a list, gives one entry per item and a bad item is an entry, so the
    others can still be answered. Raises InvalidJson, and InvalidInput where the fault lies outside
    the items.
    """
    if body.lstrip()[:1] == b"[":
        elements: list[msgspec.Raw] = _decode(body, list[msgspec.Raw])
        calls: list[Question | InvalidInput] = []
        for element in _limited(elements, max_items):
            try:
                calls.append(_single(_decode(element, _Call), max_top_k))
            except InvalidInput as problem:
                calls.append(problem)
        return Request(calls, many=True)
    call: _Call = _decode(body, _Call)
    if not isinstance(call.inputs, list):
        return Request([_single(call, max_top_k)], many=False)
    if call.question is not msgspec.UNSET or call.context is not msgspec.UNSET:
        raise _both()
    parameters = _parameters(call.parameters, max_top_k)
    items: list[Question | InvalidInput] = []
    for element in _limited(call.inputs, max_items):
        try:
            item: _Item = _decode(element, _Item)
            items.append(_question(item.question, item.context, parameters))
        except InvalidInput as problem:
            items.append(problem)
    return Request(items, many=True)


def response_body(asked: Request, entries: "Sequence[list[Answer] | InvalidInput]") -> Any:
    """The body that answers `asked`, with one entry per item: its answers, best first, or its fault."""
    bodies = [
        answer_body(entry, item.parameters.top_k)
        if isinstance(item, Question) and not isinstance(entry, InvalidInput)
        else problem_body(cast(InvalidInput, entry), index)
        for index, (item, entry) in enumerate(zip(asked.items, entries, strict=True))
    ]
    return bodies if asked.many else bodies[0]


def answer_body(answers: "Sequence[Answer]", top_k: int) -> Any:
    """Upstream's shape: one object for top_k 1, else always a list."""
    return answers[0] if top_k == 1 else list(answers)


def problem_body(problem: QAError, item: int | None = None) -> dict[str, Any]:
    """The one shape of every error; `item` counts from 0 and is absent outside lists."""
    error: dict[str, Any] = {
        "code": problem.code,
        "message": problem.message,
        "field": problem.field,
    }
    if item is not None:
        error["item"] = item
    return {"error": error}


def encode(body: Any) -> bytes:
    """JSON bytes; dataclasses become objects."""
    return msgspec.json.encode(body)


def _single(call: _Call, max_top_k: int) -> Question:
    bare = call.question is not msgspec.UNSET or call.context is not msgspec.UNSET
    if isinstance(call.inputs, list):
        raise InvalidInput("Inside a list, inputs must be one object.", field="inputs")
    if isinstance(call.inputs, _Item):
        if bare:
            raise _both()
        question, context = call.inputs.question, call.inputs.context
    else:
        for field in ("question", "context"):
            if getattr(call, field) is msgspec.UNSET:
                raise InvalidInput(f"The {field} is missing.", field=field)
        question, context = str(call.question), str(call.context)
    return _question(question, context, _parameters(call.parameters, max_top_k))


def _question(question: str, context: str, parameters: Parameters) -> Question:
    for field, text in (("question", question), ("context", context)):
        if not text:
            raise InvalidInput(f"The {field} is empty.", field=field)
    return Question(question, context, parameters)


def _parameters(body: Any, max_top_k: int) -> Parameters:
    given = {} if body is None else msgspec.structs.asdict(body)
    parameters = Parameters(**{name: value for name, value in given.items() if value is not None})
    if parameters.top_k > max_top_k:
        raise InvalidInput(
            f"top_k is {parameters.top_k} and must be at most {max_top_k}.",
            field="parameters.top_k",
        )
    return parameters


def _limited(elements: list[msgspec.Raw], max_items: int) -> list[msgspec.Raw]:
    if not elements:
        raise InvalidInput("The list of inputs is empty.", field="inputs")
    if len(elements) > max_items:
        raise InvalidInput(
            f"The request has {len(elements)} items and may have at most {max_items}.",
            field="inputs",
        )
    return elements


def _both() -> InvalidInput:
    return InvalidInput("Send either inputs or question and context, not both.", field="inputs")


def _decode(body: bytes | msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise InvalidJson(f"The body is not valid JSON: {reason}.") from None


def _invalid(message: str) -> InvalidInput:
    """Turn msgspec's sentence and path (`$.inputs.question`) into a field name."""
    sentence, _, path = message.partition(" - at ")
    parts = path.strip("`").removeprefix("$").strip(".").split(".") if path else []
    if named := re.search(r"field `(.*)`$", sentence, re.DOTALL):
        if len(named.group(1)) > _LONGEST_NAME:
            return InvalidInput("Object contains a field with a very long name.")
        parts.append(named.group(1))
    return InvalidInput(f"{sentence}.", field=".".join(filter(None, parts)) or None)
