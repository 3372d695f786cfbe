"""Hugging Face's client, unmodified, in the installed release."""

import threading

import pytest

from tests.service.conftest import Service, Start
from tests.service.test_predict import ITEM

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


def client(service: Service, path: str = "") -> "hub.InferenceClient":  # type: ignore[name-defined]
    return hub.InferenceClient(model=service.url + path)


@pytest.mark.parametrize("path", ["", "/", "/predict"])
def test_one_answer(service: Service, path: str) -> None:
    found = client(service, path).question_answering(**ITEM)
    assert {"answer": found.answer, "start": found.start, "end": found.end, "score": found.score} == (
        service.ask(ITEM).body
    )


def test_every_parameter_of_the_client(service: Service) -> None:
    parameters = {
        "align_to_words": False,
        "doc_stride": 8,
        "handle_impossible_answer": True,
        "max_answer_len": 3,
        "max_question_len": 20,
        "max_seq_len": 40,
        "top_k": 3,
    }
    found = client(service).question_answering(**ITEM, **parameters)
    assert [dict(answer) for answer in found] == service.ask(ITEM | {"parameters": parameters}).body
    assert len(found) == 3


def test_a_client_with_a_token_and_headers_of_the_hosted_api(service: Service) -> None:
    headers = {"x-wait-for-model": "true", "x-use-cache": "false"}
    found = hub.InferenceClient(model=service.url, token="hf_none", headers=headers).question_answering(
        **ITEM
    )
    assert found.answer == service.ask(ITEM).body["answer"]
    options = {"wait_for_model": True, "use_cache": False}
    assert service.ask({"inputs": ITEM, "options": options}).body == service.ask(ITEM).body


def test_errors_are_one_sentence_for_the_client(service: Service) -> None:
    for path in ("", "/predict"):
        with pytest.raises(hub.errors.HfHubHTTPError) as caught:
            client(service, path).question_answering(question="", context="text")
        assert caught.value.response.status_code == 422
        assert caught.value.server_message == "The question is empty."
    with pytest.raises(hub.errors.HfHubHTTPError) as caught:
        client(service, "/nothing").question_answering(**ITEM)
    assert caught.value.server_message.startswith("There is nothing at this path")


def test_errors_keep_the_native_form_for_others(service: Service) -> None:
    assert service.ask({"question": ""}, User_Agent="unknown/None; hf_hub/2.0; python/3.11").body == {
        "error": "The context is missing.",
        "error_type": "invalid_input",
    }
    assert service.ask({"question": ""}).body["error"]["code"] == "invalid_input"


def test_overload_has_retry_after(start: Start) -> None:
    service = start(QA_MAX_WAITING="0", QA_THREADS="1")
    long = {"question": "Where?", "context": "The island is far away. " * 20_000}
    busy = threading.Thread(target=service.ask, args=(long,), kwargs={"X_Request_Timeout": "3"})
    busy.start()
    service.await_work()
    with pytest.raises(hub.errors.HfHubHTTPError) as caught:
        client(service).question_answering(**ITEM)
    assert caught.value.response.status_code == 429
    assert caught.value.response.json()["estimated_time"] >= 1
    assert caught.value.response.json()["error_type"] == "overloaded"
    busy.join(60)


def test_health_and_endpoint_info(service: Service) -> None:
    endpoint = hub.InferenceClient(model=service.url, provider="hf-inference")
    assert endpoint.health_check()
    assert endpoint.get_endpoint_info()["model"]["precision"] == "int8"
