"""Request ids, trace contexts, and log lines without text of the request."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tracing import TraceContext, parse_traceparent, request_id
from tests.service.conftest import MODEL, Connect, Service, Start
from tests.service.test_predict import ITEM
from tests.service.wire import message

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = {"question": "Who is Rumpelstiltskin?", "context": "Nobody knows Rumpelstiltskin."}


def test_a_valid_id_is_returned_unchanged(service: Service) -> None:
    for sent in ("a", "req-0815", "x" * 128, 'with "quotes", and spaces'):
        assert service.ask(ITEM, X_Request_ID=sent).headers.get_all("X-Request-ID") == [sent]


def test_every_response_has_an_id(service: Service) -> None:
    replies = [service.ask(ITEM), service.get("/health/live"), service.get("/"), service.get("/nothing")]
    replies.append(service.ask({"question": ""}))
    ids = [reply.headers["X-Request-ID"] for reply in replies]
    assert len(set(ids)) == len(replies)
    assert all(len(found) == 32 for found in ids)


@pytest.mark.parametrize("sent", ["x" * 129, "über", "\x01", "a\tb", "", " "])
def test_an_id_that_is_not_bounded_and_printable_is_replaced(sent: str) -> None:
    assert request_id(sent) != sent
    assert len(request_id(sent)) == 32


def test_an_id_cannot_split_a_header(service: Service, connect: Connect) -> None:
    reply = connect(service).ask(message(b"{}", "X-Request-ID: a\u00e9b"))
    assert len(reply.headers["X-Request-ID"]) == 32


@pytest.mark.parametrize(
    ("header", "flags"),
    [(f"00-{TRACE}-{SPAN}-01", 1), (f"00-{TRACE}-{SPAN}-00", 0), (f"cc-{TRACE}-{SPAN}-03-more", 3)],
)
def test_a_trace_context_is_parsed(header: str, flags: int) -> None:
    assert parse_traceparent(header, "a=b") == TraceContext(TRACE, SPAN, flags, "a=b")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-٠١",
    ],
)
def test_an_invalid_trace_context_is_ignored(header: str | None) -> None:
    assert parse_traceparent(header) is None


@given(st.text())
def test_no_header_breaks_the_parsers(header: str) -> None:
    assert request_id(header).isascii()
    assert parse_traceparent(header) is None


@pytest.fixture(scope="module")
def logging_service(start: Start) -> Service:
    return start(QA_LOG_FORMAT="json", QA_MAX_WAITING="0", QA_MAX_TOP_K="5")


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.read_text().splitlines()]


def line_of(service: Service, identity: str) -> dict[str, Any]:
    (line,) = (line for line in lines(service) if line.get("id") == identity)
    return line


def test_a_request_is_one_line_of_json(logging_service: Service) -> None:
    reply = logging_service.ask(
        {"inputs": [SECRET, SECRET]}, X_Request_ID="mine", traceparent=f"00-{TRACE}-{SPAN}-01"
    )
    line = line_of(logging_service, "mine")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    assert list(line["stages"]) == ["tokenize", "queue", "infer", "decode"]
    timing = reply.headers["Server-Timing"]
    assert f"infer;dur={line['stages']['infer']:.2f}"[:-1] in timing
    assert line["ms"] >= sum(line["stages"].values())
    assert line["questions"] == 2
    assert line["tokens"] > 10
    assert line["model"] == MODEL.name
    assert (line["trace_id"], line["span_id"]) == (TRACE, SPAN)
    assert line["level"] == "info"
    assert line["time"].endswith("+00:00")


def test_failures_and_other_routes_have_a_line_too(logging_service: Service) -> None:
    logging_service.ask(
        {"question": "Rumpelstiltskin"}, X_Request_ID="fault", traceparent="00-rumpelstiltskin"
    )
    line = line_of(logging_service, "fault")
    assert (line["status"], line["code"]) == (422, "invalid_input")
    assert not {"stages", "tokens", "trace_id"} & line.keys()
    logging_service.ask(None, method="GET", path="/Rumpelstiltskin?a=Rumpelstiltskin", X_Request_ID="lost")
    line = line_of(logging_service, "lost")
    assert (line["route"], line["status"], line["code"]) == (None, 404, "not_found")
    logging_service.ask(None, method="GET", path=f"/v2/models/{MODEL.name}", X_Request_ID="pattern")
    assert line_of(logging_service, "pattern")["route"] == "/v2/models/<model>"


def test_all_lines_are_json_without_text_of_the_request(logging_service: Service) -> None:
    for body in (
        SECRET,
        {"Rumpelstiltskin": 1},
        {**SECRET, "parameters": {"Rumpelstiltskin": 1}},
        b"Rumpelstiltskin",
    ):
        logging_service.ask(body)
    found = lines(logging_service)
    assert any(f"Serving {MODEL}" in line["message"] for line in found)
    assert any(line["logger"] == "service.app" for line in found)
    assert "rumpelstiltskin" not in logging_service.log.read_text().lower()


def test_the_text_log_has_the_id(start: Start) -> None:
    service = start("--access-log")
    service.ask(SECRET, X_Request_ID="mine-too")
    service.stop()
    (line,) = (line for line in service.log.read_text().splitlines() if "POST /predict" in line)
    assert line.endswith(" mine-too")
