"""Owns the Open Inference Protocol (v2) of KServe, MLServer and Triton; knows no other protocol.

Inputs are `question` and `context`, BYTES of n elements each, as MLServer's Hugging Face runtime names them.
Outputs are `answer`, `score`, `start` and `end`, of shape [n], or [n, k] where `top_k` is above 1 (the most
answers that any question has; missing ones are empty with score 0). MLServer's own format is the output
`output`: the answers as JSON objects, content type hg_jsonlist. Requests with MLServer's content types get
it as the first output by default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec

from service import __version__, schemas
from service.engine.parameters import Parameters
from service.errors import InvalidInput, UnknownModel
from service.parsed import Entries, ParsedRequest
from service.problems import Reply
from service.protocols import native, tensors
from service.protocols.open_inference_messages import (
    InferenceRequest,
    InferenceResponse,
    Live,
    ModelMetadata,
    OpenInferenceFailure,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from service.protocols.route import (
    JSON,
    MODEL_VERSION,
    Call,
    Documentation,
    InfoRoute,
    Protocol,
    QuestionRoute,
    Site,
)
from service.protocols.tensors import OutputTensor, Scalar

if TYPE_CHECKING:  # errors are formatted while the engine is still loading
    from service.engine.answering import Answer

BINARY = "application/octet-stream"
EXTENSIONS = ["binary_tensor_data", "parameters"]
_DATATYPES = {"answer": "BYTES", "score": "FP64", "start": "INT64", "end": "INT64"}
_MISSING: dict[str, Scalar] = {"BYTES": "", "FP64": 0.0, "INT64": 0}
_TEXTS = ("question", "context", "args")
_MLSERVER_OUTPUT = "output"
_PARAMETERS = {field.name for field in fields(Parameters)}
# Parameters for servers with priorities, sequences or other encodings.
_IGNORED = {
    *("binary_data_output", "content_type", "headers", "priority", "timeout"),
    *("sequence_id", "sequence_start", "sequence_end"),
}


def _routes(site: Site) -> tuple[QuestionRoute | InfoRoute, ...]:
    asking = Documentation(
        "Answer questions in the format of the Open Inference Protocol",
        answer=InferenceResponse,
        body=InferenceRequest,
        description="Tensors may be binary in both directions (Triton's binary tensor data extension).",
        answer_media=(JSON, BINARY),
        narrow=_narrow,
        example=_example(native.EXAMPLE),
    )
    live = Documentation("Liveness of the server", Live)
    ready = Documentation("Readiness of the server", Ready)
    server = Documentation("The server and its extensions", ServerMetadata)
    model = Documentation("The model, its inputs and outputs", ModelMetadata)
    model_ready = Documentation("Readiness of the model", Ready)
    routes: list[QuestionRoute | InfoRoute] = [
        InfoRoute("/v2", _server, server),
        InfoRoute("/v2/health/live", lambda _: _reply(Live(True)), live, public=True),
        InfoRoute("/v2/health/ready", _ready, ready, may_fail=(503,), public=True),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            InfoRoute(path, _model, model, may_fail=(404,)),
            InfoRoute(f"{path}/ready", _ready, model_ready, may_fail=(404, 503), public=True),
            QuestionRoute(f"{path}/infer", _read, asking, media=()),
        ]
    return tuple(routes)


def _example(item: Mapping[str, str]) -> dict[str, Any]:
    def tensor(name: str, text: str) -> dict[str, Any]:
        return {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}

    return {"inputs": [tensor(name, text) for name, text in item.items()], "parameters": {"top_k": 2}}


def _narrow(components: dict[str, Any], site: Site) -> dict[str, Any]:
    """Inputs of equal length, which JSON Schema can express for fixed lengths only: here 1 and 2."""

    def tensor(name: str, count: int) -> dict[str, Any]:
        texts = {"type": "string", "minLength": 1}
        return {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "shape": {"const": [count]},
                "datatype": {"const": "BYTES"},
                "data": {"type": "array", "items": texts, "minItems": count, "maxItems": count},
            },
            "required": ["name", "shape", "datatype", "data"],
        }

    def inputs(count: int) -> dict[str, Any]:
        both = [tensor(name, count) for name in ("question", "context")]
        return {"type": "array", "prefixItems": both, "items": False, "minItems": 2, "maxItems": 2}

    def by_name(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"name": {"const": name}}, "required": ["name"]}

    schema = components["InferenceRequest"]
    output = {"anyOf": [by_name(name) for name in (*_DATATYPES, _MLSERVER_OUTPUT)]}
    schema["properties"] |= {
        "inputs": {"anyOf": [inputs(1), inputs(2)]},
        "parameters": {"anyOf": [{"$ref": "#/components/schemas/Parameters"}, {"type": "null"}]},
        "outputs": {"type": ["array", "null"], "items": output},
    }
    return {"$ref": "#/components/schemas/InferenceRequest"}


def _server(call: Call) -> Reply:
    return _reply(ServerMetadata("qa-onnx", __version__, EXTENSIONS))


def _ready(call: Call) -> Reply:
    _check_model(call)
    call.site.check_ready()
    return _reply(Ready(True, call.path.get("model", msgspec.UNSET)))


def _model(call: Call) -> Reply:
    _check_model(call)
    inputs = [TensorMetadata(name, "BYTES", [-1]) for name in ("question", "context")]
    outputs = [TensorMetadata(name, datatype, [-1]) for name, datatype in _DATATYPES.items()]
    return _reply(
        ModelMetadata(call.site.model_name, [MODEL_VERSION], "qa_onnx_onnxruntime", inputs, outputs)
    )


def _check_model(call: Call) -> None:
    name = call.site.model_name
    if call.path.get("model", name) != name:
        raise UnknownModel(f"The only model here is {name}.", field="model")
    if call.path.get("version", MODEL_VERSION) != MODEL_VERSION:
        raise UnknownModel(f"The only version of the model here is {MODEL_VERSION}.", field="version")


def _read(call: Call) -> ParsedRequest:
    _check_model(call)
    settings = call.site.settings
    head, binary = tensors.split_body(call.body, call.header(tensors.JSON_LENGTH_HEADER))
    sent: InferenceRequest = schemas.decode(head, InferenceRequest)
    for tensor in sent.inputs:
        if tensor.name in _TEXTS and tensor.datatype != "BYTES":
            raise InvalidInput(f"The input {tensor.name} must be BYTES.", field=f"inputs.{tensor.name}")
    elements = tensors.read_texts(sent.inputs, binary)
    given = {name: value for name, value in (sent.parameters or {}).items() if name not in _IGNORED}
    # MLServer's runtime passes further inputs to the pipeline as parameters.
    given |= {name: elements.pop(name)[0] for name in _PARAMETERS & elements.keys() if elements[name]}
    parameters = schemas.read_parameters(
        schemas.decode(schemas.encode(given), schemas.ParametersBody), settings.max_top_k
    )
    pairs = schemas.limited(_pairs(elements), settings.max_items)
    items = [schemas.read_question(question, context, parameters) for question, context in pairs]
    requested = _requested_outputs(sent)

    def encode(entries: Entries) -> Reply:
        answers: list[list[Answer]] = []
        for number, entry in enumerate(entries):
            if isinstance(entry, InvalidInput):  # tensors cannot carry an error, so one fails the request
                raise InvalidInput(_with_item(entry.message, number), field=entry.field)
            answers.append(entry)
        outputs = [_output(name, answers, parameters.top_k) for name in requested]
        parts = []
        for at, (output, binary) in enumerate(zip(outputs, requested.values(), strict=True)):
            if binary:
                outputs[at], data = tensors.write(output)
                parts.append(data)
        body = schemas.encode(InferenceResponse(call.site.model_name, MODEL_VERSION, outputs, sent.id))
        if not parts:
            return Reply(200, body)
        header = (tensors.JSON_LENGTH_HEADER, str(len(body)))
        return Reply(200, b"".join((body, *parts)), (header,), BINARY)

    return ParsedRequest(schemas.Request(items, many=len(items) > 1), encode)


def _pairs(elements: Mapping[str, Sequence[Any]]) -> list[tuple[str, str]]:
    """Questions with their contexts, from `question` and `context` or MLServer's `args` of JSON objects."""
    if "args" in elements and len(elements) == 1:
        items: list[schemas.Item] = [
            schemas.decode(str(element).encode(), schemas.Item) for element in elements["args"]
        ]
        return [(item.question, item.context) for item in items]
    for name in ("question", "context"):
        if name not in elements:
            raise InvalidInput(f"The input {name} is missing.", field=f"inputs.{name}")
        if not all(isinstance(element, str) for element in elements[name]):
            raise InvalidInput(f"The input {name} must hold texts.", field=f"inputs.{name}")
    if len(elements) > 2:
        raise InvalidInput("The inputs are question and context and no others.", field="inputs")
    questions, contexts = elements["question"], elements["context"]
    if len(questions) != len(contexts):
        raise InvalidInput(
            f"There are {len(questions)} questions and {len(contexts)} contexts.", field="inputs"
        )
    return list(zip(questions, contexts, strict=True))


def _requested_outputs(sent: InferenceRequest) -> dict[str, bool]:
    """Names of the outputs to return, and whether each is binary."""
    common = bool((sent.parameters or {}).get("binary_data_output", False))
    requested = {
        output.name: bool((output.parameters or {}).get("binary_data", common))
        for output in sent.outputs or []
    }
    if any(name not in _DATATYPES and name != _MLSERVER_OUTPUT for name in requested):
        known = ", ".join((*_DATATYPES, _MLSERVER_OUTPUT))
        raise InvalidInput(f"An output is none of {known}.", field="outputs")
    annotations = (sent.parameters, *(tensor.parameters for tensor in sent.inputs))
    mlserver = any("content_type" in (parameters or {}) for parameters in annotations)
    names = (_MLSERVER_OUTPUT, *_DATATYPES) if mlserver else tuple(_DATATYPES)
    return requested or dict.fromkeys(names, common)


def _output(name: str, answers: Sequence[Sequence["Answer"]], top_k: int) -> OutputTensor:
    if name == _MLSERVER_OUTPUT:
        bodies = [schemas.answer_body(found, top_k) for found in answers]
        rows = [row for body in bodies for row in (body if isinstance(body, list) else [body])]
        texts: list[Scalar] = [schemas.encode(row).decode() for row in rows]
        return OutputTensor(name, "BYTES", [len(texts), 1], {"content_type": "hg_jsonlist"}, texts)
    count = max(len(found) for found in answers)
    missing = _MISSING[_DATATYPES[name]]
    values: list[Scalar] = [
        getattr(found[rank], name) if rank < len(found) else missing
        for found in answers
        for rank in range(count)
    ]
    shape = [len(answers)] if top_k == 1 else [len(answers), count]
    return OutputTensor(name, _DATATYPES[name], shape, {}, values)


def _with_item(message: str, number: int) -> str:
    return f"Item {number}: {message}"


def _error(reply: Reply, error: Mapping[str, Any]) -> OpenInferenceFailure:
    message = error["message"]
    return OpenInferenceFailure(_with_item(message, error["item"]) if "item" in error else message)


def _reply(body: Any) -> Reply:
    return Reply(200, schemas.encode(body))


PROTOCOL = Protocol("open inference", _routes, _error, OpenInferenceFailure, prefixes=("/v2/",))
