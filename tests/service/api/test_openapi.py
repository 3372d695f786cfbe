"""The OpenAPI document: complete, valid, consistent with the responses; and the page that shows it."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.engine.parameters import Parameters
from service.protocols import PROTOCOLS
from tests.service.api.fuzz import fuzz
from tests.service.conftest import Service, Start

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture(scope="module")
def everything(start: Start) -> Service:
    """A service with the routes of every protocol."""
    return start(AIP_PREDICT_ROUTE="/vertex", AIP_HEALTH_ROUTE="/vertex/health")


@pytest.fixture(scope="module")
def document(everything: Service) -> Any:
    return everything.get("/openapi.json").body


def test_every_route_and_every_protocol_is_documented(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    assert {tag["name"] for tag in document["tags"]} == {
        *(protocol.name for protocol in PROTOCOLS),
        "pages",
    }
    routes = {(m, p) for p, operations in document["paths"].items() for m in operations}
    assert {
        ("post", "/predict"),
        ("post", "/"),
        ("get", "/"),
        ("get", "/docs"),
        ("get", "/info"),
        ("get", "/metrics"),
        ("get", "/health"),
        ("post", "/invocations"),
        ("get", "/ping"),
        ("post", "/vertex"),
        ("get", "/vertex/health"),
        ("post", "/v2/models/{model}/versions/{version}/infer"),
    } <= routes


def test_every_parameter_is_documented_with_its_default(document: Any) -> None:
    documented = document["components"]["schemas"]["Parameters"]["properties"]
    ours = Parameters()
    assert {name: schema["default"] for name, schema in documented.items()} == {
        name: getattr(ours, name) for name in Parameters.__dataclass_fields__
    }


def test_references_resolve_and_operation_ids_are_unique(document: Any) -> None:
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in document["components"]["schemas"]
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    assert all(
        set(operation["responses"]) > {"200"}
        for path in document["paths"].values()
        for operation in path.values()
    )


def test_limits_are_those_of_the_settings(start: Start, service: Service) -> None:
    schemas = service.get("/openapi.json").body["components"]["schemas"]
    assert schemas["Parameters"]["properties"]["top_k"]["maximum"] == 5
    assert schemas["Several"]["properties"]["inputs"]["maxItems"] == 4


def test_security_is_documented_where_keys_are_required(start: Start, document: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-this-test-4711\n")
    guarded = start(QA_API_KEYS_FILE=str(keys)).get("/openapi.json").body
    predict = guarded["paths"]["/predict"]["post"]
    assert predict["security"] == [{"key": []}]
    assert "401" in predict["responses"]
    assert guarded["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "security" not in guarded["paths"]["/health/live"]["get"]
    assert "401" not in document["paths"]["/predict"]["post"]["responses"]


def test_schemathesis_finds_nothing(everything: Service) -> None:
    """A short run; `python -m tests.service.api.fuzz URL` is the long one."""
    outcome = fuzz(everything.url, 70, "--phases", "examples,fuzzing", "--seed", "1")
    assert outcome.clean, outcome.text
    assert outcome.cases > 70, outcome.text


def test_schemathesis_detects_a_violation(everything: Service) -> None:
    """An impossible limit of the response time, to show that schemathesis reports violations."""
    outcome = fuzz(everything.url, 7, "--phases", "examples", "--max-response-time", "0.000001")
    assert not outcome.clean


def test_the_page_loads_nothing_from_other_origins(service: Service) -> None:
    reply = service.get("/docs")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    for name, kind in (("script.js", "text/javascript"), ("style.css", "text/css")):
        file = service.get(f"/docs/{name}")
        assert file.status == 200
        assert file.headers["Content-Type"].startswith(kind)
        assert b"://" not in file.data
    again = service.ask(None, method="GET", path="/docs", If_None_Match=reply.headers["ETag"])
    assert again.status == 304
