"""Requests as OpenTelemetry spans, exported to an OTLP receiver over HTTP on the loopback interface."""

import gzip
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.service.conftest import MODEL, ROOT, Service, Start, environment
from tests.service.test_predict import ITEM
from tests.service.test_process import startup_error
from tests.service.test_tracing import SECRET, SPAN, TRACE, lines

STAGES = ["tokenize", "queue", "infer", "decode"]


class Receiver(http.server.ThreadingHTTPServer):
    """Records exported spans, like a collector."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: set[str] = set()
        super().__init__(("127.0.0.1", 0), Exports)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def await_span(self, identity: str) -> Span:
        """Wait for the span of the request with that id, and its children."""
        deadline = time.monotonic() + 60
        while True:
            for span in self.spans():
                if attributes(span).get("qa.request_id") == identity:
                    return span
            assert time.monotonic() < deadline
            time.sleep(0.05)


class Exports(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        self.server.paths.add(self.path)
        self.server.requests.append(ExportTraceServiceRequest.FromString(data))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def attributes(span: Span) -> dict[str, str | int]:
    values = ((attribute.key, attribute.value) for attribute in span.attributes)
    return {key: value.string_value or value.int_value for key, value in values}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def traced(start: Start, receiver: Receiver) -> Service:
    return start(
        python=sys.executable,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="50",  # milliseconds between exports
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        QA_LOG_FORMAT="json",
    )


def test_a_request_is_a_span_with_its_stages_as_children(traced: Service, receiver: Receiver) -> None:
    before = time.time_ns()
    traced.ask(SECRET, X_Request_ID="one", traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=x")
    after = time.time_ns()
    span = receiver.await_span("one")
    assert span.name == "POST /predict"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.trace_state == "vendor=x"
    assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= after
    received = attributes(span)
    assert received["http.request.method"] == "POST"
    assert received["http.route"] == "/predict"
    assert received["http.response.status_code"] == 200
    assert received["qa.model"] == MODEL.name
    assert received["qa.questions"] == 1
    assert isinstance(received["qa.tokens"], int)
    assert received["qa.tokens"] > 5
    stages = [child for child in receiver.spans() if child.parent_span_id == span.span_id]
    assert [child.name for child in stages] == STAGES
    edges = [span.start_time_unix_nano]
    for child in stages:
        assert child.trace_id == span.trace_id
        edges += [child.start_time_unix_nano, child.end_time_unix_nano]
    edges.append(span.end_time_unix_nano)
    assert edges == sorted(edges)
    assert receiver.paths == {"/v1/traces"}


def test_the_log_names_the_span(traced: Service, receiver: Receiver) -> None:
    traced.ask(ITEM, X_Request_ID="without-parent")
    span = receiver.await_span("without-parent")
    assert span.parent_span_id == b""
    (line,) = (line for line in lines(traced) if line.get("id") == "without-parent")
    assert (line["trace_id"], line["span_id"]) == (span.trace_id.hex(), span.span_id.hex())


def test_failures_have_spans_too(traced: Service, receiver: Receiver) -> None:
    traced.ask({"question": "Rumpelstiltskin"}, X_Request_ID="fault")
    received = attributes(receiver.await_span("fault"))
    assert received["http.response.status_code"] == 422
    assert received["error.type"] == "invalid_input"
    assert "qa.tokens" not in received
    traced.ask(None, method="GET", path="/Rumpelstiltskin", X_Request_ID="lost")
    span = receiver.await_span("lost")
    assert span.name == "GET"
    assert "http.route" not in attributes(span)


def test_the_sampling_decision_of_the_caller_is_respected(traced: Service, receiver: Receiver) -> None:
    traced.ask(ITEM, X_Request_ID="unsampled", traceparent=f"00-{TRACE}-{SPAN}-00")
    traced.ask(ITEM, X_Request_ID="sampled", traceparent=f"00-{TRACE}-{SPAN}-01")
    receiver.await_span("sampled")
    assert "unsampled" not in [attributes(span).get("qa.request_id") for span in receiver.spans()]


def test_spans_have_no_text_of_the_request(traced: Service, receiver: Receiver) -> None:
    traced.ask(SECRET, X_Request_ID="secret")
    receiver.await_span("secret")
    assert "rumpelstiltskin" not in str(receiver.requests).lower()


def test_resource_attributes(traced: Service, receiver: Receiver) -> None:
    traced.ask(ITEM, X_Request_ID="resource")
    receiver.await_span("resource")
    resource = receiver.requests[0].resource_spans[0].resource
    received = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
    assert received["service.name"] == "qa-onnx"
    assert received["deployment.environment.name"] == "test"


def test_pending_spans_are_exported_before_exit(start: Start, receiver: Receiver) -> None:
    service = start(
        python=sys.executable,
        QA_OTLP_ENDPOINT=f"{receiver.url}/",
        OTEL_BSP_SCHEDULE_DELAY="600000",
        OTEL_SERVICE_NAME="mine",
    )
    service.ask(ITEM, X_Request_ID="last")
    assert service.stop() == 0
    receiver.await_span("last")
    received = [request.resource_spans[0].resource for request in receiver.requests]
    assert any("mine" in str(resource) for resource in received)


def test_a_missing_receiver_does_not_affect_requests(start: Start, free_port: int) -> None:
    endpoint = f"http://127.0.0.1:{free_port}"
    service = start(python=sys.executable, QA_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="50")
    for _ in range(3):
        assert service.ask(ITEM).status == 200


def test_without_the_extra_the_error_says_what_to_install(runtime_python: Path) -> None:
    received = startup_error(runtime_python, QA_MODEL=str(MODEL), QA_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert "qa-onnx[otel]" in received


def test_opentelemetry_is_not_imported_without_the_setting() -> None:
    program = f"""
import sys
from pathlib import Path
import service.gunicorn_conf
from service.app import create_app
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.settings import Settings
answerer = QuestionAnswerer(load_artifact(Path({str(MODEL)!r})), threads=1)
client = create_app(Settings.from_env(), answerer).test_client()
assert client.post("/predict", json={ITEM!r}).status_code == 200
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
