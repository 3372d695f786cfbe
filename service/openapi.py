"""Owns the OpenAPI 3.1 document, generated from the routes and their types; knows no format itself."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from service import __version__
from service.engine.decoding import Answer, ExplainedAnswer
from service.predict import DEADLINE_HEADER
from service.protocols import Routes, huggingface, native
from service.protocols.route import JSON, Documentation, InfoRoute, Protocol, QuestionRoute
from service.schemas import Item, ParametersBody

Schema = dict[str, Any]

_REF = "#/components/schemas/{name}"
_QUESTION_FAILS = (400, 413, 415, 422, 429, 500, 503, 504)
_RETRY_AFTER = (429, 503)  # with Retry-After
_DESCRIPTION = (
    "Extractive question answering: returns the span of the context that answers a question. "
    "The APIs of other servers are supported, too, so that their clients work unmodified."
)
_DEADLINE = {
    "name": DEADLINE_HEADER,
    "in": "header",
    "description": "Seconds that the client will wait; the service then answers 504.",
    # From a tenth of a second on: a number type would promise answers within any time, however short.
    "schema": {"type": "string", "pattern": r"^(0\.[1-9][0-9]*|[1-9][0-9]*(\.[0-9]+)?)$"},
}


def document(routes: Routes, pages: Mapping[str, tuple[str, Sequence[str]]]) -> Schema:
    """The document, ready for JSON. `pages` are further GET routes, each with a summary and content types."""
    entries = routes.all
    types: list[Any] = [Answer, ExplainedAnswer, Item, ParametersBody, huggingface.PROTOCOL.error_schema]
    for protocol, route in entries.values():
        shown = route.documentation
        types += [t for t in (protocol.error_schema, shown.answer, shown.body) if isinstance(t, type)]
    _, components = msgspec.json.schema_components(list(dict.fromkeys(types)), ref_template=_REF)
    parameters = components["Parameters"]["properties"]
    parameters["top_k"]["maximum"] = routes.site.settings.max_top_k
    for schema in parameters.values():
        if "type" in schema:
            schema.pop("anyOf", None)  # the type for msgspec, which is wider
    # Bodies first: a protocol may narrow the components that its body consists of.
    bodies = {
        key: _body(route.documentation, components, routes)
        for key, (_, route) in entries.items()
        if isinstance(route, QuestionRoute)
    }
    paths: dict[str, Schema] = {}
    for key, (protocol, route) in entries.items():
        method, path = key
        operation = _operation(protocol, route, routes, f"{method.lower()} {path}")
        if isinstance(route, QuestionRoute):
            media = route.media or (JSON,)
            operation["requestBody"] = {
                "required": True,
                "content": {kind: bodies[key] if kind == JSON else _TEXT for kind in media},
            }
        paths.setdefault(path, {})[method.lower()] = operation
    for path, (summary, kinds) in pages.items():
        paths.setdefault(path, {}).setdefault("get", _page(path, summary, kinds))
    schemes = {"securitySchemes": {_KEY: _BEARER}} if routes.site.settings.api_keys_file else {}
    del components["Call"]  # replaced by its forms
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "qa-onnx",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],  # relative to the document, so that any path prefix works
        "tags": [{"name": name} for name in (*dict.fromkeys(p.name for p, _ in entries.values()), _PAGES)],
        "paths": paths,
        "components": {"schemas": components, **schemes},
    }


_TEXT = {"schema": {"type": "string"}}
_PAGES = "pages"  # a tag
_KEY = "key"  # the security scheme, if API keys are required
_BEARER = {"type": "http", "scheme": "bearer"}


def _page(path: str, summary: str, media: Sequence[str]) -> Schema:
    content = {kind: {} if kind == JSON else _TEXT for kind in media}
    answers = {
        "200": {"description": "Answered.", "content": content},
        "304": {"description": "Not modified."},
        "500": _failure(500, native.PROTOCOL),
    }
    return {"summary": summary, "operationId": f"get {path}", "tags": [_PAGES], "responses": answers}


def _body(shown: Documentation, components: dict[str, Schema], routes: Routes) -> Schema:
    schema = shown.narrow(components, routes.site) if shown.narrow else _ref(shown.body)
    return {"schema": schema} | ({"example": shown.example} if shown.example else {})


def _operation(protocol: Protocol, route: QuestionRoute | InfoRoute, routes: Routes, name: str) -> Schema:
    shown = route.documentation
    parameters = [_path_parameter(part[1:-1], routes) for part in route.path.split("/") if part[:1] == "{"]
    if isinstance(route, QuestionRoute):
        parameters.append(_DEADLINE)
    answer = shown.answer if isinstance(shown.answer, dict) else _ref(shown.answer)
    content = {kind: {"schema": answer} if kind == JSON else _TEXT for kind in shown.answer_media}
    good: Schema = {"description": "Answered.", "content": content}
    if isinstance(route, QuestionRoute):
        described = {"description": "Milliseconds of each stage.", "schema": {"type": "string"}}
        good["headers"] = {"Server-Timing": described}
    operation: Schema = {"summary": shown.summary, "operationId": name, "tags": [protocol.name]}
    if shown.description:
        operation["description"] = shown.description
    if parameters:
        operation["parameters"] = parameters
    statuses = _fails(route)
    if routes.site.settings.api_keys_file and not (isinstance(route, InfoRoute) and route.public):
        operation["security"] = [{_KEY: []}]
        statuses = sorted([*statuses, 401])
    responses = {"200": good} | {str(status): _failure(status, protocol) for status in statuses}
    return operation | {"responses": responses}


def _fails(route: QuestionRoute | InfoRoute) -> list[int]:
    if isinstance(route, InfoRoute):
        return [*route.may_fail, 500]
    unknown = [404] if "{" in route.path else []
    return sorted([*unknown, *(s for s in _QUESTION_FAILS if s != 415 or route.media)])


def _failure(status: int, protocol: Protocol) -> Schema:
    schema = _ref(protocol.error_schema)
    if protocol is native.PROTOCOL:
        schema = {"anyOf": [schema, _ref(huggingface.PROTOCOL.error_schema)]}
    failure: Schema = {
        "description": f"{HTTPStatus(status).phrase}.",
        "content": {JSON: {"schema": schema}},
    }
    if status in _RETRY_AFTER:
        described = {"description": "Seconds after which to retry.", "schema": {"type": "integer"}}
        failure["headers"] = {"Retry-After": described}
    return failure


def _path_parameter(name: str, routes: Routes) -> Schema:
    (value,) = (v for n, v in routes.site.path_values.items() if n == name)
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}}


def _ref(kind: type) -> Mapping[str, str] | Schema:
    if kind is str:
        return {"type": "string"}
    if getattr(kind, "__origin__", kind) is dict:
        return {"type": "object"}
    name = "Parameters" if kind is ParametersBody else kind.__name__
    return {"$ref": _REF.format(name=name)}
