"""SageMaker's and Vertex AI's containers: the paths, ports and bodies that the platforms use."""

import json

import pytest

from service.settings import Settings
from tests.service.conftest import Reply, Service, Start
from tests.service.test_predict import ITEM, OTHER

LINES = "application/jsonlines"
PREDICT = "/v1/endpoints/1/deployedModels/2:predict"


@pytest.fixture(scope="module")
def vertex(start: Start) -> Service:
    return start(AIP_PREDICT_ROUTE=PREDICT, AIP_HEALTH_ROUTE="/healthz", QA_MAX_ITEMS="4")


def lines(service: Service, *rows: object, accept: str = "*/*") -> Reply:
    body = b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    return service.ask(body, path="/invocations", Content_Type=LINES, Accept=accept)


def test_sagemaker_ping_and_json(service: Service) -> None:
    assert service.get("/ping").status == 200
    for body in (ITEM, [ITEM, OTHER], {"inputs": ITEM, "parameters": {"top_k": 3}}):
        reply = service.ask(body, path="/invocations")
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/json"
        assert reply.body == service.ask(body).body


def test_sagemaker_json_lines(service: Service) -> None:
    reply = lines(service, ITEM, {"inputs": OTHER, "parameters": {"top_k": 2}}, b"")
    assert reply.headers["Content-Type"] == LINES
    answers = [json.loads(line) for line in reply.data.splitlines()]
    assert answers[0] == service.ask(ITEM).body
    assert answers[1] == service.ask({"inputs": OTHER, "parameters": {"top_k": 2}}).body
    assert lines(service, ITEM, accept="application/json").body == [service.ask(ITEM).body]
    one = service.ask(ITEM, path="/invocations", Accept=LINES)
    assert one.data == service.ask(ITEM).data + b"\n"


def test_an_invalid_line_does_not_affect_the_others(service: Service) -> None:
    reply = lines(service, ITEM, b"{", {"question": ""}, OTHER)
    answers = [json.loads(line) for line in reply.data.splitlines()]
    assert [answers[0], answers[3]] == service.ask([ITEM, OTHER]).body
    assert [answers[1]["error"]["item"], answers[2]["error"]["item"]] == [1, 2]
    assert answers[1]["error"]["message"].startswith("The line is not valid JSON")


@pytest.mark.parametrize(
    ("rows", "status"), [((), 422), ((b"{",), 422), ((ITEM,) * 5, 422), (({"inputs": [ITEM]},), 422)]
)
def test_sagemaker_errors(service: Service, rows: tuple[object, ...], status: int) -> None:
    reply = lines(service, *rows)
    assert reply.status == status
    assert set(reply.body) == {"code", "type", "message"}
    assert (reply.body["code"], reply.body["type"]) == (422, "UnprocessableEntityException")


def test_sagemaker_errors_of_the_framework(service: Service) -> None:
    assert service.get("/invocations").body["type"] == "MethodNotAllowedException"
    text = service.ask(ITEM, path="/invocations", Content_Type="text/csv")
    assert (text.status, text.body["type"]) == (415, "UnsupportedMediaTypeException")
    long = service.ask(ITEM | {"context": "x" * 30_000}, path="/invocations")
    assert (long.status, long.body["code"]) == (413, 413)


def test_vertex_health_and_predictions(vertex: Service) -> None:
    assert vertex.get("/healthz").status == 200
    body = {"instances": [ITEM, OTHER], "parameters": {"top_k": 2}}
    native = vertex.ask({"inputs": [ITEM, OTHER], "parameters": {"top_k": 2}}).body
    assert vertex.ask(body, path=PREDICT).body == {"predictions": native}
    assert vertex.ask({"instances": [ITEM]}, path=PREDICT).body == {"predictions": [vertex.ask(ITEM).body]}
    mixed = vertex.ask({"instances": [ITEM, {"question": "Q"}]}, path=PREDICT).body["predictions"]
    assert mixed[0] == vertex.ask(ITEM).body
    assert mixed[1]["error"]["field"] == "context"


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"{", 400, "INVALID_ARGUMENT"),
        ({"instances": []}, 422, "INVALID_ARGUMENT"),
        ({"instances": [ITEM] * 5}, 422, "INVALID_ARGUMENT"),
        ({"instances": [{}]}, 422, "INVALID_ARGUMENT"),
        ({"instances": [ITEM], "parameters": {"top_k": 0}}, 422, "INVALID_ARGUMENT"),
        (ITEM, 422, "INVALID_ARGUMENT"),
    ],
)
def test_vertex_errors_are_googles(vertex: Service, body: object, status: int, name: str) -> None:
    reply = vertex.ask(body, path=PREDICT)
    assert reply.status == status
    assert set(reply.body["error"]) == {"code", "message", "status"}
    assert (reply.body["error"]["code"], reply.body["error"]["status"]) == (status, name)


def test_vertex_routes_override_others(start: Start) -> None:
    service = start(AIP_PREDICT_ROUTE="/predict", AIP_HEALTH_ROUTE="/")
    reply = service.ask({"instances": [ITEM]}, path="/predict")
    assert reply.body == {"predictions": [service.ask(ITEM, path="/").body]}
    assert service.get("/").body == {"status": "ready"}


def test_the_port_of_platforms() -> None:
    assert Settings.from_env(env={"AIP_HTTP_PORT": "8080"}).port == 8080
    assert Settings.from_env(env={"SAGEMAKER_BIND_TO_PORT": "8081"}).port == 8081
    assert Settings.from_env(env={"AIP_HTTP_PORT": "8080", "QA_PORT": "81"}).port == 81
    assert Settings.from_env({"port": "82"}, {"AIP_HTTP_PORT": "8080"}).port == 82


def test_the_models_name_is_a_setting(start: Start) -> None:
    service = start(QA_MODEL_NAME="reader")
    assert service.get("/v2/models/reader").body["name"] == "reader"
    assert service.get("/v2/models/tiny-int8").status == 404
