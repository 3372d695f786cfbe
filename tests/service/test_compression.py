"""Responses above a minimum size are compressed with gzip if the client accepts it."""

import gzip
import json

import pytest

from tests.service.conftest import Reply, Service
from tests.service.test_predict import ITEM

MANY = {"inputs": [ITEM] * 4, "parameters": {"top_k": 5}}


def ask(service: Service, body: object, accepted: str) -> Reply:
    return service.ask(body, Accept_Encoding=accepted)


def test_a_long_answer_is_gzipped(service: Service) -> None:
    plain, packed = ask(service, MANY, "identity"), ask(service, MANY, "br, gzip")
    assert len(plain.data) > 1024
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.data) < len(plain.data)
    assert gzip.decompress(packed.data) == plain.data
    for reply in (plain, packed):  # for caches
        assert "Accept-Encoding" in reply.headers["Vary"]
    assert packed.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("accepted", ["*", "deflate;q=0.5, gzip;q=0.1", "GZIP"])
def test_forms_of_accept_encoding_that_allow_gzip(service: Service, accepted: str) -> None:
    assert ask(service, MANY, accepted).headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("accepted", ["gzip;q=0", "br", "", "gzip;q=0, *", "x-gzip-not"])
def test_gzip_is_not_sent_unless_accepted(service: Service, accepted: str) -> None:
    assert "Content-Encoding" not in ask(service, MANY, accepted).headers


def test_short_responses_are_not_compressed(service: Service) -> None:
    for reply in (ask(service, ITEM, "gzip"), ask(service, {}, "gzip")):
        assert "Content-Encoding" not in reply.headers
        assert json.loads(reply.data)


def test_etags_work_with_compression(service: Service) -> None:
    def get(**headers: str) -> Reply:
        sent = {"Accept_Encoding": "gzip", **headers}
        return service.ask(None, method="GET", path="/page/script.js", connection=None, **sent)

    first = get()
    assert first.headers["Content-Encoding"] == "gzip"
    assert first.headers["ETag"].startswith('W/"')
    again = get(If_None_Match=first.headers["ETag"])
    assert (again.status, again.data) == (304, b"")
    head = service.ask(None, method="HEAD", path="/page/script.js", Accept_Encoding="gzip")
    assert head.headers["Content-Length"] == first.headers["Content-Length"]
