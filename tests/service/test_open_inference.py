"""The Open Inference Protocol with NVIDIA's client, in JSON and binary, and in MLServer's form."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.service.conftest import Service
from tests.service.test_predict import ITEM, OTHER

http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
utils = pytest.importorskip("tritonclient.utils")
MODEL = "tiny-int8"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture
def triton(service: Service) -> Any:
    client = http.InferenceServerClient(f"{service.host}:{service.port}")
    yield client
    client.close()


def inputs(*items: dict[str, str], binary: bool = True) -> list[Any]:
    made = []
    for name in ("question", "context"):
        texts = np.array([item[name].encode() for item in items], dtype=object)
        made.append(http.InferInput(name, [len(items)], "BYTES"))
        made[-1].set_data_from_numpy(texts, binary_data=binary)
    return made


def tensor(name: str, *data: Any, **parameters: str) -> dict[str, Any]:
    shown = {"parameters": parameters} if parameters else {}
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": list(data)} | shown


def asked(*items: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor(name, *(i[name] for i in items)) for name in ("question", "context")]} | more


def outputs(body: Any) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in body["outputs"]}


def test_health_and_metadata(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(MODEL)
    assert triton.is_model_ready(MODEL, "1")
    assert not triton.is_model_ready("other")
    assert triton.get_server_metadata()["name"] == "qa-onnx"
    metadata = triton.get_model_metadata(MODEL)
    assert [entry["name"] for entry in metadata["inputs"]] == ["question", "context"]
    assert {entry["name"]: entry["datatype"] for entry in metadata["outputs"]} == {
        "answer": "BYTES",
        "score": "FP64",
        "start": "INT64",
        "end": "INT64",
    }


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [None, True, False])
def test_answers_in_every_encoding(
    triton: Any, service: Service, version: str, binary_in: bool, binary_out: bool | None
) -> None:
    names = ("answer", "score", "start", "end")
    wanted = None
    if binary_out is not None:
        wanted = [http.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    result = triton.infer(
        MODEL,
        inputs(ITEM, OTHER, binary=binary_in),
        model_version=version,
        outputs=wanted,
        request_id="7",
    )
    assert result.get_response()["id"] == "7"
    found = {name: result.as_numpy(name) for name in names}
    assert [found["score"].dtype, found["start"].dtype] == [np.float64, np.int64]
    rows = zip(*(found[name].tolist() for name in names), strict=True)
    decode = [(text.decode() if isinstance(text, bytes) else text, *rest) for text, *rest in rows]
    assert [dict(zip(names, row, strict=True)) for row in decode] == service.ask([ITEM, OTHER]).body


def test_parameters_and_several_answers(triton: Any, service: Service) -> None:
    result = triton.infer(MODEL, inputs(ITEM, OTHER), parameters={"top_k": 3, "max_answer_len": 4})
    native = service.ask({"inputs": [ITEM, OTHER], "parameters": {"top_k": 3, "max_answer_len": 4}}).body
    assert result.as_numpy("start").shape == (2, 3)
    assert result.as_numpy("start").tolist() == [[a["start"] for a in answers] for answers in native]


def test_outputs_are_padded_to_top_k(service: Service) -> None:
    short = {"question": "Who?", "context": "Zoe"}
    body = service.ask(asked(ITEM, short, parameters={"top_k": 3}), path=INFER).body
    native = service.ask({"inputs": short, "parameters": {"top_k": 3}}).body
    assert body["outputs"][0]["shape"] == [2, 3]
    filled = [answer["answer"] for answer in native] + [""] * (3 - len(native))
    assert outputs(body)["answer"][3:] == filled


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_client_that_accepts_compressed_answers(triton: Any, algorithm: str) -> None:
    result = triton.infer(MODEL, inputs(ITEM), response_compression_algorithm=algorithm)
    assert result.as_numpy("answer").shape == (1,)


def test_the_client_raises_errors(triton: Any) -> None:
    calls: list[tuple[Callable[[], Any], str, str]] = [
        (lambda: triton.infer("other", inputs(ITEM)), "404", "The only model here is tiny-int8."),
        (lambda: triton.infer(MODEL, inputs(ITEM), model_version="2"), "404", "The only version"),
        (lambda: triton.infer(MODEL, inputs(ITEM), parameters={"top_k": 0}), "422", "top_k must be"),
        (lambda: triton.infer(MODEL, inputs(ITEM), parameters={"topk": 1}), "422", "Object contains unknown"),
        (lambda: triton.infer(MODEL, inputs(ITEM)[:1]), "422", "The input context is missing."),
        (lambda: triton.infer(MODEL, inputs(ITEM | {"question": ""})), "422", "The question is empty."),
        (lambda: triton.infer(MODEL, inputs(*[ITEM] * 5)), "422", "The request has 5 items"),
        (
            lambda: triton.infer(MODEL, inputs(ITEM), parameters={"max_seq_len": 4}),
            "422",
            "A window of 4 tokens",
        ),
        (
            lambda: triton.infer(MODEL, inputs(OTHER, ITEM), parameters={"max_seq_len": 8}),
            "422",
            "Item 1: A window of 8 tokens",
        ),
    ]
    for call, status, sentence in calls:
        with pytest.raises(utils.InferenceServerException) as caught:
            call()
        assert caught.value.status() == status
        assert caught.value.message().startswith(sentence)


@pytest.mark.parametrize(
    ("head", "binary", "length"),
    [
        ({"binary_data_size": 9}, b"\x05\0\0\0short", None),
        ({"binary_data_size": 8}, b"\x05\0\0\0shor", 0),
        ({"binary_data_size": 3}, b"\x05\0\0", 0),
        ({"binary_data_size": -1}, b"", 0),
        ({"binary_data_size": 99}, b"\x05\0\0\0short", 0),
        ({"binary_data_size": 6}, b"\x02\0\0\0\xff\xfe", 0),
        ({}, b"left over", 0),
        ({"binary_data_size": True}, b"\x01", 0),
        ({"binary_data_size": 9}, b"\x05\0\0\0short", "many"),
        ({"binary_data_size": 9}, b"\x05\0\0\0short", "9999"),
        ({"binary_data_size": 9}, b"\x05\0\0\0short", "9" * 5000),
        ({"binary_data_size": 9}, b"\x05\0\0\0short", "²"),
    ],
)
def test_malformed_binary_data_is_rejected(service: Service, head: Any, binary: bytes, length: Any) -> None:
    question = {"name": "question", "shape": [1], "datatype": "BYTES", "parameters": head}
    if not head:
        question["data"] = ["Who?"]
    body = json.dumps({"inputs": [question, tensor("context", "text")]}).encode()
    value = str(length or len(body)).encode("utf-8").decode("latin-1")  # the encoding of header fields
    if length is None:
        reply = service.ask(body + binary, path=INFER)
    else:
        reply = service.ask(body + binary, path=INFER, Inference_Header_Content_Length=value)
    assert reply.status in (400, 422), reply.data
    assert isinstance(reply.body["error"], str)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"inputs": []},
        {"inputs": [tensor("question", "Q")]},
        asked(ITEM) | {"inputs": [tensor("question", "Q", "Q"), tensor("context", "C")]},
        {"inputs": [tensor("question", 7), tensor("context", "C")]},
        {"inputs": [tensor("question", "Q"), tensor("context", "C"), tensor("other", "C")]},
        {"inputs": [tensor("question", "Q"), tensor("question", "Q"), tensor("context", "C")]},
        {"inputs": [tensor("question", "Q") | {"shape": [2]}, tensor("context", "C")]},
        {"inputs": [tensor("args", "no JSON")]},
        asked(ITEM, outputs=[{"name": "logits"}]),
        asked(ITEM, parameters={"top_k": "3"}),
    ],
)
def test_invalid_requests_get_errors_of_the_protocol(service: Service, body: Any) -> None:
    reply = service.ask(body, path=INFER)
    assert reply.status in (400, 422), reply.data
    assert set(reply.body) == {"error"}
    assert reply.body["error"].endswith(".")


def test_nested_data_and_other_shapes(service: Service) -> None:
    body = asked(ITEM, OTHER)
    for entry in body["inputs"]:
        entry["shape"], entry["data"] = [2, 1], [[text] for text in entry["data"]]
    assert service.ask(body, path=INFER).body == service.ask(asked(ITEM, OTHER), path=INFER).body


def test_other_paths_below_v2_answer_in_the_protocols_form(service: Service) -> None:
    assert isinstance(service.get("/v2/nothing").body["error"], str)
    assert isinstance(service.get(INFER).body["error"], str)


def test_mlservers_form(service: Service) -> None:
    native = service.ask([ITEM, OTHER]).body
    body = asked(ITEM, OTHER)
    for entry in body["inputs"]:
        entry["parameters"] = {"content_type": "str"}
    first = service.ask(body, path=INFER).body["outputs"][0]
    assert first["name"] == "output"
    assert first["shape"] == [2, 1]
    assert first["parameters"] == {"content_type": "hg_jsonlist"}
    assert [json.loads(text) for text in first["data"]] == native
    arguments = {"inputs": [tensor("args", *map(json.dumps, (ITEM, OTHER)), content_type="hg_jsonlist")]}
    assert service.ask(arguments, path=INFER).body["outputs"][0] == first
    alone = service.ask(asked(ITEM, OTHER, outputs=[{"name": "output"}]), path=INFER).body["outputs"]
    assert alone == [first]
    several = asked(ITEM)["inputs"] + [tensor("top_k", 3, content_type="raw")]
    assert service.ask({"inputs": several}, path=INFER).body["outputs"][0]["shape"] == [3, 1]


def test_mlservers_own_codecs(service: Service) -> None:
    codecs = pytest.importorskip("mlserver.codecs", reason="mlserver is not installed")
    types = pytest.importorskip("mlserver.types")
    items = [ITEM, OTHER]
    entries = [codecs.StringCodec.encode_input(n, [i[n] for i in items], use_bytes=False) for n in ITEM]
    request = types.InferenceRequest(inputs=entries)
    reply = service.ask(request.model_dump_json(exclude_none=True).encode(), path=INFER)
    response = types.InferenceResponse.model_validate_json(reply.data)
    by_name = {output.name: output for output in response.outputs}
    native = service.ask(items).body
    assert codecs.StringCodec.decode_output(by_name["answer"]) == [answer["answer"] for answer in native]
    assert codecs.NumpyCodec.decode_output(by_name["end"]).tolist() == [answer["end"] for answer in native]


def test_mlservers_hugging_face_codec(service: Service) -> None:
    hugging_face = pytest.importorskip(
        "mlserver_huggingface.codecs", reason="mlserver-huggingface is not installed"
    )
    types = pytest.importorskip("mlserver.types")
    request = hugging_face.HuggingfaceRequestCodec.encode_request(
        {"question": ITEM["question"], "context": ITEM["context"]}, use_bytes=False
    )
    reply = service.ask(request.model_dump_json(exclude_none=True).encode(), path=INFER)
    response = types.InferenceResponse.model_validate_json(reply.data)
    decoded = hugging_face.HuggingfaceRequestCodec.decode_response(response)
    assert decoded["output"] == [service.ask(ITEM).body]
