"""Owns the JSON of requests and responses; knows no HTTP status and no model."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec

from service.engine.parameters import Parameters
from service.errors import InvalidInput, QAError

if TYPE_CHECKING:  # the master process formats errors and must not load the engine
    from service.engine.answering import Answer

# Minimums for the OpenAPI document; Parameters checks them itself.
_LEAST = {"top_k": 1, "max_answer_len": 1, "max_seq_len": 1, "max_question_len": 1, "doc_stride": 0}


def _field(field: "dataclasses.Field[Any]") -> tuple[str, Any, Any]:
    """Name, type and default as `msgspec.defstruct` takes them."""
    kind: Any = field.type
    if field.name in _LEAST:
        # msgspec refuses 3.0 for int; in JSON Schema that is an integer, and some languages write it.
        extra = {"type": ["integer", "null"], "minimum": _LEAST[field.name]}
        kind = Annotated[kind | float | None, msgspec.Meta(extra_json_schema=extra)]
    return field.name, kind | None, field.default


# The fields and defaults of Parameters, with unknown names refused: one list, not two. Null is the default of
# each.
ParametersBody: Any = msgspec.defstruct(
    "Parameters",
    [_field(field) for field in dataclasses.fields(Parameters)],
    forbid_unknown_fields=True,
    frozen=True,
)
_DEFAULTS = Parameters()
_Text = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]

# Longer names of unknown fields are not repeated in errors.
_LONGEST_NAME = 64


class InvalidJson(QAError):
    """The body is not JSON."""

    code = "invalid_json"


class Item(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A question and its context."""

    question: _Text
    context: _Text


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Options of Hugging Face's hosted API, without effect: the model is loaded, nothing is cached."""

    use_cache: bool = True
    use_gpu: bool = False
    wait_for_model: bool = False


class Call(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`{"inputs": ..., "parameters": ...}` or `{"question": ..., "context": ...}`."""

    inputs: Item | list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    question: _Text | msgspec.UnsetType = msgspec.UNSET
    context: _Text | msgspec.UnsetType = msgspec.UNSET
    parameters: ParametersBody | None = None
    options: Options | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One valid item of a request."""

    question: str
    context: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Request:
    """A request's items in order, each valid or its error; with `many` the result is a list."""

    items: Sequence[Question | InvalidInput]
    many: bool


def parse_request(body: bytes, *, max_items: int, max_top_k: int) -> Request:
    """Read a request body.

    A list, or `inputs` with a list, gives one entry per item. The entry of an invalid item is its error, so
    that the others can be answered. Raises InvalidJson, and InvalidInput for errors outside the items.
    """
    if body.lstrip()[:1] == b"[":
        elements: list[msgspec.Raw] = decode(body, list[msgspec.Raw])
        calls: list[Question | InvalidInput] = []
        for element in limited(elements, max_items):
            try:
                calls.append(read_call(decode(element, Call), max_top_k))
            except InvalidInput as problem:
                calls.append(problem)
        return Request(calls, many=True)
    call: Call = decode(body, Call)
    if not isinstance(call.inputs, list):
        return Request([read_call(call, max_top_k)], many=False)
    if call.question is not msgspec.UNSET or call.context is not msgspec.UNSET:
        raise _both()
    parameters = read_parameters(call.parameters, max_top_k)
    items = [read_item(element, parameters) for element in limited(call.inputs, max_items)]
    return Request(items, many=True)


def response_body(request: Request, entries: "Sequence[list[Answer] | InvalidInput]") -> Any:
    """The body for `request`, with one entry per item: its answers, best first, or its error."""
    bodies = [
        answer_body(entry, item.parameters.top_k)
        if isinstance(item, Question) and not isinstance(entry, InvalidInput)
        else problem_body(cast(InvalidInput, entry), index)
        for index, (item, entry) in enumerate(zip(request.items, entries, strict=True))
    ]
    return bodies if request.many else bodies[0]


def answer_body(answers: "Sequence[Answer]", top_k: int) -> Any:
    """As upstream: an object for top_k 1, else a list."""
    return answers[0] if top_k == 1 else list(answers)


def problem_body(problem: QAError, item: int | None = None) -> dict[str, Any]:
    """The body of every error; `item` counts from 0 and is absent outside lists."""
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


def read_call(call: Call, max_top_k: int) -> Question:
    """The one question of `call`. Raises InvalidInput."""
    bare = call.question is not msgspec.UNSET or call.context is not msgspec.UNSET
    if isinstance(call.inputs, list):
        raise InvalidInput("Inside a list, inputs must be one object.", field="inputs")
    if isinstance(call.inputs, Item):
        if bare:
            raise _both()
        question, context = call.inputs.question, call.inputs.context
    else:
        for field in ("question", "context"):
            if getattr(call, field) is msgspec.UNSET:
                raise InvalidInput(f"The {field} is missing.", field=field)
        question, context = str(call.question), str(call.context)
    return read_question(question, context, read_parameters(call.parameters, max_top_k))


def read_question(question: str, context: str, parameters: Parameters) -> Question:
    """Raises InvalidInput where one of the texts is empty."""
    for field, text in (("question", question), ("context", context)):
        if not text:
            raise InvalidInput(f"The {field} is empty.", field=field)
    return Question(question, context, parameters)


def read_parameters(body: Any, max_top_k: int) -> Parameters:
    """The parameters in `body`, a ParametersBody or None. Raises InvalidInput for one out of range."""
    if body is None:
        return _DEFAULTS
    values = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
    for field in dataclasses.fields(Parameters):
        value = values.get(field.name)
        if isinstance(value, float) and field.name in _LEAST:
            if not value.is_integer():
                raise InvalidInput("Expected `int`, got `float`.", field=f"parameters.{field.name}")
            values[field.name] = int(value)
    parameters = Parameters(**values)
    if parameters.top_k > max_top_k:
        raise InvalidInput(
            f"top_k is {parameters.top_k} and must be at most {max_top_k}.",
            field="parameters.top_k",
        )
    return parameters


def read_item(element: msgspec.Raw, parameters: Parameters) -> Question | InvalidInput:
    """The question in one element of a list, or its error."""
    try:
        item: Item = decode(element, Item)
        return read_question(item.question, item.context, parameters)
    except InvalidInput as problem:
        return problem


def limited(elements: list[Any], max_items: int, field: str | None = "inputs") -> list[Any]:
    """The list unchanged. Raises InvalidInput naming `field` if it is empty or longer than `max_items`."""
    if not elements:
        raise InvalidInput("The list of questions is empty.", field=field)
    if len(elements) > max_items:
        raise InvalidInput(
            f"The request has {len(elements)} items and may have at most {max_items}.", field=field
        )
    return elements


def _both() -> InvalidInput:
    return InvalidInput("Send either inputs or question and context, not both.", field="inputs")


def decode(body: bytes | msgspec.Raw, kind: Any) -> Any:
    """JSON as `kind`. Raises InvalidJson, and InvalidInput naming a field of the wrong type."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise InvalidJson(f"The body is not valid JSON: {reason}.") from None


def _invalid(message: str) -> InvalidInput:
    """Convert msgspec's message and path (`$.inputs.question`) to an error with a field name."""
    sentence, _, path = message.partition(" - at ")
    parts = path.strip("`").removeprefix("$").strip(".").split(".") if path else []
    if named := re.search(r"field `(.*)`$", sentence, re.DOTALL):
        if len(named.group(1)) > _LONGEST_NAME:
            return InvalidInput("Object contains a field with a very long name.")
        parts.append(named.group(1))
    return InvalidInput(f"{sentence}.", field=".".join(filter(None, parts)) or None)
