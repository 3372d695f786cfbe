"""Error responses over HTTP: status, code and field, without any text of the request."""

import json
import threading

import pytest

from service.app import create_app
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.settings import Settings
from tests.service.conftest import MODEL, Reply, Service, Start
from tests.service.test_predict import ITEM

SECRET = "Zanzibar-4711"  # noqa: S105 - a text to look for in replies and logs
LONG = {"question": "Where?", "context": f"{SECRET} is far away. " * 20_000}


def assert_error(reply: Reply, status: int, code: str, field: str | None = None) -> None:
    assert reply.status == status, reply.data
    assert reply.headers["Content-Type"] == "application/json"
    error = reply.body["error"]
    assert (error["code"], error["field"]) == (code, field)
    assert error["message"].endswith(".")
    assert SECRET not in reply.data.decode()
    assert "Traceback" not in reply.data.decode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"question": "Zanzibar-4711',
        b"\xff\xfe",
        b"NaN",
        b"[" * 9_000,
        b'{"question": "\xed\xa0\x80"}',
    ],
)
def test_not_json(service: Service, body: bytes) -> None:
    assert_error(service.ask(body), 400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ([], "inputs"),
        (7, None),
        (None, None),
        ({"inputs": []}, "inputs"),
        ({"inputs": "text"}, "inputs"),
        ({"inputs": {"question": "Q"}}, "inputs.context"),
        ({"question": "Q", "context": ""}, "context"),
        ({"question": 7, "context": SECRET}, "question"),
        ({"question": "Q", "context": SECRET, "top_k": 2}, "top_k"),
        ({"question": "Q", "context": SECRET, "parameters": {"topk": 2}}, "parameters.topk"),
        ({"question": "Q", "context": SECRET, "parameters": {"top_k": "2"}}, "parameters.top_k"),
        ({"question": "Q", "context": SECRET, "parameters": {"top_k": 6}}, "parameters.top_k"),
        ({"question": "Q", "context": SECRET, "parameters": {"doc_stride": -1}}, "parameters.doc_stride"),
        ({"question": "Q", "context": SECRET, "parameters": {"scoring": "x"}}, "parameters.scoring"),
        ({"question": "Q", "context": SECRET, "parameters": []}, "parameters"),
        ({"inputs": ITEM, "question": "Q"}, "inputs"),
        ([ITEM] * 5, "inputs"),
        ({"inputs": [ITEM] * 5}, "inputs"),
        ([{"question": "Q"}], "context"),
    ],
)
def test_wrong_fields(service: Service, body: object, field: str | None) -> None:
    data = b"null" if body is None else body
    assert_error(service.ask(data), 422, "invalid_input", field)


def test_lone_surrogates_are_rejected(service: Service) -> None:
    reply = service.ask(b'{"question": "Q", "context": "' + SECRET.encode() + b'\\ud83d"}')
    assert_error(reply, 400, "invalid_json")


def test_other_paths_methods_types_and_sizes(service: Service) -> None:
    assert_error(service.ask(ITEM, path="/nothing"), 404, "not_found")
    reply = service.get("/predict")
    assert_error(reply, 405, "method_not_allowed")
    assert "POST" in reply.headers["Allow"]
    assert_error(service.ask(ITEM, Content_Type="text/plain"), 415, "unsupported_media_type")
    assert_error(service.ask(LONG), 413, "too_large")
    assert service.ask(ITEM).status == 200


def test_a_client_that_is_still_sending_gets_the_reply_and_no_reset(service: Service) -> None:
    for _ in range(5):
        assert_error(service.ask({"question": "Q", "context": "x" * 20_000_000}), 413, "too_large")


def test_a_chunked_body_is_limited_too(service: Service) -> None:
    connection = service.connect()
    chunks = iter([b'{"question": "Q", "context": "' + b"x" * 30_000, b'"}'])
    connection.request("POST", "/predict", chunks, {"Content-Type": "application/json"}, encode_chunked=True)
    response = connection.getresponse()
    assert_error(Reply(response.status, response.headers, response.read()), 413, "too_large")
    connection.close()


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf"])
def test_an_invalid_deadline(service: Service, value: str) -> None:
    assert_error(service.ask(ITEM, X_Request_Timeout=value), 422, "invalid_input", "X-Request-Timeout")


def test_deadlines(start: Start) -> None:
    service = start(QA_DEADLINE_SECONDS="0.05", QA_THREADS="1")
    assert_error(service.ask(LONG), 504, "deadline_exceeded")
    assert_error(service.ask(LONG, X_Request_Timeout="60"), 504, "deadline_exceeded")  # the minimum applies
    patient = start(QA_THREADS="1")
    assert_error(patient.ask(LONG, X_Request_Timeout="0.05"), 504, "deadline_exceeded")
    assert patient.ask(ITEM, X_Request_Timeout="20").status == 200


def test_overload_is_rejected_with_retry_after(start: Start) -> None:
    service = start(QA_MAX_WAITING="0", QA_THREADS="1", QA_MAX_ITEMS="64")
    replies: list[Reply] = []
    long = threading.Thread(target=lambda: replies.append(service.ask(LONG)))
    long.start()
    service.await_work()
    reply = service.ask(ITEM)
    assert_error(reply, 429, "overloaded")
    assert int(reply.headers["Retry-After"]) >= 1
    assert service.get("/health/ready").status == 200  # overloaded, but ready
    long.join(60)
    assert replies[0].status == 200
    assert service.ask(ITEM).status == 200


def test_internal_errors_reveal_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answerer = QuestionAnswerer(load_artifact(MODEL), threads=1)

    def broken(self: QuestionAnswerer, windows: object, **_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(QuestionAnswerer, "infer", broken)
    client = create_app(Settings(), answerer).test_client()
    for _ in range(3):  # a failed run releases its slot
        response = client.post("/predict", json=ITEM)
        assert response.status_code == 500
        assert json.loads(response.data)["error"]["code"] == "internal_error"
        assert SECRET not in response.text
    assert "RuntimeError at " in caplog.text
    assert "test_refusals.py" in caplog.text
    assert SECRET not in caplog.text


def test_the_log_has_no_texts(start: Start) -> None:
    service = start(QA_LOG_LEVEL="debug")
    assert service.ask({"question": SECRET, "context": SECRET}).status == 200
    assert service.ask(LONG | {"bad": 1}).status == 422
    assert service.ask(f'{{"question": "{SECRET}'.encode()).status == 400
    assert SECRET not in service.log.read_text()
