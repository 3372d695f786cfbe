"""Fuzzing target: arbitrary bytes as a request body. The reply is an answer or an error of the protocol."""

import json
from functools import cache
from pathlib import Path

from werkzeug.test import Client

from service.app import create_app
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.settings import Settings

TINY = Path(__file__).resolve().parents[1] / "models/tiny-fp32"
_PATHS = ("/predict", "/v2/models/tiny/infer", "/invocations", "/vertex")
_CODINGS = ("identity", "gzip", "deflate")
_STATUSES = {200, 400, 413, 415, 422}

_ITEM = {"question": "Who wrote it?", "context": "The letter was written by Amelia Hart in 1902."}
_TENSORS = {
    "id": "7",
    "inputs": [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in _ITEM.items()
    ],
}
_BINARY = json.dumps(
    {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}}
            for name in _ITEM
        ]
    }
).encode()
# A byte for the path, one for the coding, and one for the length of a binary message's JSON; then the body.
SEEDS = [
    b"\0\0\0" + json.dumps(_ITEM).encode(),
    b"\0\0\0" + json.dumps({"inputs": [_ITEM, {}], "parameters": {"top_k": 3, "doc_stride": 8}}).encode(),
    b"\0\1\0" + json.dumps([_ITEM]).encode(),
    b"\1\0\0" + json.dumps(_TENSORS).encode(),
    b"\1\0" + bytes([len(_BINARY)]) + _BINARY + 2 * b"\3\0\0\0Ann",
    b"\2\0\0" + json.dumps(_ITEM).encode(),
    b"\3\0\0" + json.dumps({"instances": [_ITEM]}).encode(),
]


@cache
def _client() -> Client:
    settings = Settings(
        model=TINY, model_name="tiny", vertex_predict_route="/vertex", max_items=4, max_body_bytes=1 << 16
    )
    return create_app(settings, QuestionAnswerer(load_artifact(TINY), threads=1)).test_client()


def check(data: bytes) -> int:
    """The status of the reply; raises unless it is an answer or a valid error response."""
    path, coding, size = (*data[:3], 0, 0, 0)[:3]
    headers = {"Content-Encoding": _CODINGS[coding % len(_CODINGS)], "Content-Type": "application/json"}
    if size:
        headers |= {"Inference-Header-Content-Length": str(size), "Content-Type": "application/octet-stream"}
    response = _client().post(_PATHS[path % len(_PATHS)], data=data[3:], headers=headers)
    assert response.status_code in _STATUSES
    if response.content_type == "application/json":
        assert type(json.loads(response.data)) in (dict, list)
    return response.status_code
