"""What the shortcut takes for a plain question, gunicorn's own parser reads the same, to the last byte."""

import random

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

from service.shortcut import plain_head
from tests.service.wire import BODY, QUESTION, message

# Lines to build heads from, plain and not.
LINES = [
    "Host: x", "host:\ty ", "Content-Type: application/json", "content-type:APPLICATION/JSON;charset=utf-8",
    "Content-Length: {}", "CONTENT-LENGTH:{} ",
    "HOST:", "Host : x", "Content-Type: text/plain", "Content_Type: application/json",
    "Content-Length: 0{}", "Content-Length: +{}", "Content-Length: {},{}",
    "content_length: {}", "Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding: identity",
    "transfer_encoding: chunked", "Connection: keep-alive", "Connection: close", "connection: Keep-Alive, TE",
    "Connection: upgrade", "Upgrade: h2c", "Expect: 100-continue", "Expect: x", "Trailer: x", "TE: trailers",
    "X-Request-Timeout: 5", "x-request-timeout:\t7 \t", "X_Request_Timeout: 9", "X-Request-Timeout:",
    "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off", "X-Forwarded-Protocol: tcp", "SCRIPT_NAME: /x",
    "Script-Name: /x", "Accept: */*", "Cookie: a=\xe9", "A:b:c", " folded", "\tfolded", "", ":", "no colon",
    "X: a\n b", "X: a\rb", "X: \x00", "X: \x7f", "X\x80: a", "X" * 9000 + ": y", "Y: " + "x" * 8187,
    *(f"X-{number}: {number}" for number in range(20)),
]  # fmt: skip
FIRST = ["POST /predict HTTP/1.1", "POST / HTTP/1.1"] * 6 + [
    "POST /predict?a HTTP/1.1", "POST /predict# HTTP/1.1", "POST //predict HTTP/1.1",
    "POST http://x/ HTTP/1.1",
    "POST /predict HTTP/1.0", "POST /predict HTTP/1.10", "POST /predict", "GET / HTTP/1.1", "post / HTTP/1.1",
    " POST / HTTP/1.1", "POST  / HTTP/1.1", "POST / HTTP/1.1 ", "POST /predict HTTP/2.0",
    "\r\nPOST / HTTP/1.1",
]  # fmt: skip


CONFIG = Config()


def by_gunicorn(data: bytes) -> Request:
    """Parse as the service does, whose configuration leaves the rules of parsing as they are."""
    return next(RequestParser(CONFIG, iter([data]), ("127.0.0.1", 1)))


def parse(data: bytes) -> tuple[bytes, str | None] | None:
    """As the shortcut does where all has come in one piece."""
    head = plain_head(data)
    return None if head is None else head.question(data)


def built(chance: random.Random) -> bytes:
    """A head of mostly plain lines in any order, and a body that mostly fits."""
    body = chance.choice([BODY, BODY, b"", b"{}", QUESTION])
    plain = [chance.choice(LINES[:2]), chance.choice(LINES[2:4]), chance.choice(LINES[4:6])]
    odd = chance.choices(LINES, k=chance.choice([0, 0, 1, 2, 5, 90, 110]))
    lines = plain[: chance.choice([3, 3, 3, 2])] + odd
    if chance.random() < 0.5:  # no name twice
        lines = list({line.partition(":")[0].lower(): line for line in lines}.values())
    chance.shuffle(lines)
    end = "\r\n" if chance.random() < 0.95 else chance.choice(["\n", "\r", "\r\r\n"])
    head = end.join([chance.choice(FIRST), *lines, "", ""]).replace("{}", str(len(body)))
    return head.encode("latin-1") + body + chance.choice([b"", b"", b"", b"\r\n", QUESTION])


def changed(chance: random.Random) -> bytes:
    """A plain question with a few bytes of its head changed."""
    data = bytearray(message(BODY, "Connection: keep-alive", "X-Request-Timeout: 5", "Accept: */*"))
    for _ in range(chance.choice([1, 1, 2, 3])):
        place = chance.randrange(len(data) - len(BODY))
        piece = bytes([chance.choice(b"\r\n\t :,_-\0\x7f\x80\xff05aZ")])
        data[place : place + chance.choice([0, 1, 1, 2])] = chance.choice([piece, piece, b""])
    return bytes(data)


@pytest.mark.parametrize("source", [built, changed])
def test_gunicorn_reads_every_plain_question_the_same(source: object) -> None:
    assert callable(source)
    chance = random.Random(730)
    taken = refused = 0
    for _ in range(20_000):
        data = source(chance)
        question = parse(data)
        if question is None:
            try:
                by_gunicorn(data)
            except (ParseException, OSError, StopIteration):
                refused += 1
            continue
        taken += 1
        body, timeout = question
        request = by_gunicorn(data)  # raises what it refuses
        assert (request.method, request.version) == ("POST", (1, 1))
        assert request.path in ("/", "/predict")
        assert not request.query
        assert not request.fragment
        assert request.body.read() == body
        assert request.unreader.read() == b""  # and nothing is left
        assert not request.should_close()
        assert request._expected_100_continue is False
        headers = dict(request.headers)
        assert len(headers) == len(request.headers)
        assert headers["CONTENT-TYPE"].lower().startswith("application/json")
        assert headers["CONTENT-LENGTH"] == str(len(body))
        assert headers.get("X-REQUEST-TIMEOUT") == timeout
        assert not {"SCRIPT_NAME", "TRANSFER-ENCODING", "CONTENT-ENCODING"} & headers.keys()
    assert taken > 1000
    assert refused > 1000


@pytest.mark.parametrize("cut", range(len(QUESTION)))
def test_a_part_is_not_yet_a_question(cut: int) -> None:
    assert parse(QUESTION[:cut]) is None


def test_a_question_is_read_to_its_last_byte() -> None:
    assert parse(QUESTION) == (BODY, None)
    assert parse(message(BODY, "X-Request-Timeout: 5 ")) == (BODY, "5")
    assert parse(QUESTION.replace(b"Host: x\r\n", b"")) is None  # RFC 9112 wants one; gunicorn does not
    assert parse(QUESTION + b"x") is None
    assert parse(QUESTION + QUESTION) is None
