"""Request bodies: compressed, with a byte order mark, in other encodings, huge and malformed."""

import gzip
import json
import time
import zlib

import pytest

from tests.service.conftest import Connect, Service, Start
from tests.service.test_predict import ITEM
from tests.service.test_refusals import SECRET, assert_error
from tests.service.wire import BODY, message

LIMIT = 20_000  # of the shared service


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.fixture(scope="module")
def default_service(start: Start) -> Service:
    return start()


COMPRESSED = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "capitals": ("GZip", gzip.compress(BODY)),
    "x-gzip": ("x-gzip", gzip.compress(BODY)),
    "two members": ("gzip", gzip.compress(BODY[:20]) + gzip.compress(BODY[20:])),
    "deflate": ("deflate", zlib.compress(BODY)),
    "deflate, best": ("deflate", zlib.compress(BODY, 9)),
    "deflate without header": ("deflate", raw_deflate(BODY)),
    "identity": ("identity", BODY),
    "nothing": ("", BODY),
    "to the limit": ("gzip", gzip.compress(BODY.ljust(LIMIT))),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_bodies(service: Service, connect: Connect, kind: str) -> None:
    coding, body = COMPRESSED[kind]
    expected = service.ask(ITEM).body
    wire = connect(service)
    assert wire.ask(message(body, f"Content-Encoding: {coding}")).body == expected
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    chunked = message(chunks, f"Content-Encoding: {coding}", length="Transfer-Encoding: chunked")
    assert wire.ask(chunked).body == expected


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
def test_decompression_bombs_are_rejected(service: Service, connect: Connect, pack) -> None:  # type: ignore[no-untyped-def] # three kinds
    coding = "gzip" if pack is gzip.compress else "deflate"
    for size in (LIMIT + 1, 10_000_000):
        body = pack(BODY.ljust(size))
        assert_error(connect(service).ask(message(body, f"Content-Encoding: {coding}")), 413, "too_large")


def test_multi_member_decompression_bombs_are_rejected(service: Service, connect: Connect) -> None:
    body = gzip.compress(b" " * 1000) * 30
    assert_error(connect(service).ask(message(body, "Content-Encoding: gzip")), 413, "too_large")


def test_bodies_of_many_gzip_members_are_rejected_quickly(default_service: Service, connect: Connect) -> None:
    """Decompressing 2 MB of empty members once occupied the CPU for two minutes."""
    body = gzip.compress(b"") * 100_000
    assert_error(connect(default_service).ask(message(body, "Content-Encoding: gzip")), 400, "invalid_json")
    body = gzip.compress(b"") * 100 + gzip.compress(BODY)
    assert connect(default_service).ask(message(body, "Content-Encoding: gzip")).status == 200


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", SECRET])
def test_unsupported_content_encodings_are_rejected(service: Service, connect: Connect, coding: str) -> None:
    reply = connect(service).ask(message(BODY, f"Content-Encoding: {coding}"))
    assert_error(reply, 415, "unsupported_media_type")
    assert reply.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", BODY),
        ("gzip", gzip.compress(BODY)[:-9]),
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
        ("gzip", gzip.compress(BODY) + SECRET.encode()),
        ("gzip", zlib.compress(BODY)),
        ("deflate", BODY),
        ("deflate", zlib.compress(BODY)[:-1]),
    ],
)
def test_corrupt_compressed_bodies_are_rejected(
    service: Service, connect: Connect, coding: str, body: bytes
) -> None:
    assert_error(connect(service).ask(message(body, f"Content-Encoding: {coding}")), 400, "invalid_json")


def test_a_byte_order_mark_is_stripped(service: Service) -> None:
    expected = service.ask(ITEM).body
    assert service.ask(b"\xef\xbb\xbf" + BODY).body == expected
    assert service.ask(b"\xef\xbb\xbf" + json.dumps([ITEM]).encode()).body == [expected]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_character_encodings_are_rejected(service: Service, encoding: str) -> None:
    reply = service.ask(BODY.decode().encode(encoding))
    assert_error(reply, 400, "invalid_json")
    assert "UTF-8" in reply.body["error"]["message"]


def test_null_is_the_default_of_an_optional_parameter(service: Service) -> None:
    names = service_parameters()
    expected = service.ask(ITEM).body
    assert service.ask(ITEM | {"parameters": dict.fromkeys(names)}).body == expected
    assert service.ask(ITEM | {"parameters": None}).body == expected
    assert_error(service.ask(ITEM | {"context": None}), 422, "invalid_input", "context")


def service_parameters() -> list[str]:
    from dataclasses import fields

    from service.engine.parameters import Parameters

    return [field.name for field in fields(Parameters)]


def test_duplicate_keys_and_non_finite_numbers(service: Service) -> None:
    twice = b'{"question": 7, "question": "Who wrote the letter?", "context": "Ann wrote the letter."}'
    assert_error(service.ask(twice), 422, "invalid_input", "question")
    last = b'{"question": "x", "context": "Ann.", "context": "Ann wrote the letter."}'
    assert service.ask(last).body == service.ask({"question": "x", "context": "Ann wrote the letter."}).body
    for number, status in ((b"NaN", 400), (b"Infinity", 400), (b"-Infinity", 400), (b"1e999", 422)):
        body = BODY[:-1] + b', "parameters": {"null_threshold": ' + number + b"}}"
        assert service.ask(body).status == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"' + b"a" * 1_000_000 + b'": 1}', 422),
        (b'{"a":' * 100_000, 422),
        (b'{"question": ' + b"[" * 100_000, 422),
        (b"[" + b"[" * 100_000 + b"]" * 100_000 + b"]", 400),
        (json.dumps([ITEM] * 100_000).encode()[:1_900_000].rsplit(b", {", 1)[0] + b"]", 422),
        (b"[" + b"0," * 100_000 + b"0]", 422),
        (json.dumps({"inputs": [0] * 100_000}).encode(), 422),
        (json.dumps({"question": "why " * 250_000, "context": "Ann wrote it."}).encode(), 422),
        (json.dumps({"question": "w" * 1_000_000, "context": "Ann wrote it."}).encode(), 200),
        (json.dumps({"question": "\u0301" * 300_000, "context": "Ann wrote it."}).encode(), 200),
    ],
)
def test_large_bodies_are_processed_or_rejected_quickly(
    default_service: Service, body: bytes, status: int
) -> None:
    began = time.monotonic()
    reply = default_service.ask(body)
    took = time.monotonic() - began
    assert reply.status == status, reply.data[:200]
    assert took < 20  # seconds: far above the usual time, far below the deadline
    assert len(reply.data) < 10_000
    assert default_service.ask(ITEM).status == 200
