"""Every form of request to a running server, and the shapes of the answers."""

import pytest

from tests.service.conftest import Reply, Service, Start

ITEM = {
    "question": "Who wrote the letter?",
    "context": "The letter was written by Amelia Hart in the spring of 1902.",
}
OTHER = {"question": "When?", "context": "The bridge was opened in 1931 by the mayor."}


def answer(service: Service, body: object) -> object:
    reply = service.ask(body)
    assert reply.status == 200, reply.data
    return reply.body


def test_one_question_in_each_form_has_one_answer(service: Service) -> None:
    bare = answer(service, ITEM)
    assert isinstance(bare, dict)
    assert set(bare) == {"answer", "start", "end", "score"}
    assert ITEM["context"][bare["start"] : bare["end"]] == bare["answer"]
    assert answer(service, {"inputs": ITEM}) == bare
    assert answer(service, {"inputs": ITEM, "parameters": {"top_k": 1}}) == bare
    assert service.ask(ITEM, path="/").body == bare
    assert service.ask(ITEM, Content_Type="application/json; charset=utf-8").body == bare


def test_lists_are_answered_in_order(service: Service) -> None:
    each = [answer(service, ITEM), answer(service, OTHER)]
    assert answer(service, [ITEM, OTHER]) == each
    assert answer(service, {"inputs": [ITEM, OTHER]}) == each
    assert answer(service, [{"inputs": OTHER}, {"inputs": ITEM}]) == each[::-1]
    assert answer(service, [ITEM]) == each[:1]


def test_several_answers_are_always_a_list(service: Service) -> None:
    several = answer(service, ITEM | {"parameters": {"top_k": 3}})
    assert isinstance(several, list)
    assert len(several) == 3
    assert several[0] == answer(service, ITEM)
    assert len({(a["start"], a["end"]) for a in several}) == 3
    assert [a["score"] for a in several] == sorted((a["score"] for a in several), reverse=True)
    one_place = answer(service, {"question": "Who?", "context": "Ann", "parameters": {"top_k": 2}})
    assert isinstance(one_place, list)
    assert answer(service, {"inputs": [ITEM, OTHER], "parameters": {"top_k": 3}}) == [
        several,
        answer(service, OTHER | {"parameters": {"top_k": 3}}),
    ]


def test_items_of_a_list_have_their_own_parameters(service: Service) -> None:
    replies = answer(service, [ITEM | {"parameters": {"top_k": 2}}, ITEM])
    assert isinstance(replies, list)
    assert isinstance(replies[0], list)
    assert replies[1] == replies[0][0]


def test_no_answer_is_a_valid_result(service: Service) -> None:
    parameters = {"handle_impossible_answer": True, "null_threshold": -1000}
    found = answer(service, ITEM | {"parameters": parameters})
    assert isinstance(found, dict)
    assert (found["answer"], found["start"], found["end"]) == ("", 0, 0)
    assert answer(service, {"question": "Who?", "context": " \n "}) == {
        "answer": "",
        "start": 0,
        "end": 0,
        "score": 0.0,
    }


@pytest.mark.parametrize(
    "context",
    [
        "Zoe\u0308 and Zo\u00eb met.\r\nThen they left.",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 the family of \U0001f600 moved",
        "東京は日本の首都です。",
        "ولد في القاهرة عام 1911",
        "before\x00after the NUL",
    ],
)
def test_offsets_are_code_points_of_the_text_as_sent(service: Service, context: str) -> None:
    for found in answer(service, {"question": "Who?", "context": context, "parameters": {"top_k": 5}}):  # type: ignore[attr-defined]
        assert context[found["start"] : found["end"]] == found["answer"]


def test_an_invalid_item_does_not_affect_the_others(service: Service) -> None:
    bad = {"question": "", "context": "text"}
    replies = answer(service, {"inputs": [ITEM, bad, OTHER, 7]})
    assert isinstance(replies, list)
    assert [replies[0], replies[2]] == answer(service, [ITEM, OTHER])
    assert replies[1]["error"] == {
        "code": "invalid_input",
        "message": "The question is empty.",
        "field": "question",
        "item": 1,
    }
    assert replies[3]["error"]["item"] == 3
    reply = service.ask([ITEM, {"question": "Why?"}, ITEM | {"parameters": {"top_k": 0}}])
    assert [entry.get("error", {}).get("field") for entry in reply.body] == [
        None,
        "context",
        "parameters.top_k",
    ]


def test_stages_are_timed(service: Service) -> None:
    def stages(reply: Reply) -> dict[str, float]:
        entries = (entry.split(";dur=") for entry in reply.headers["Server-Timing"].split(", "))
        return {name: float(milliseconds) for name, milliseconds in entries}

    times = stages(service.ask(ITEM))
    assert list(times) == ["tokenize", "queue", "infer", "decode"]
    assert times["infer"] > 0
    assert all(value >= 0 for value in times.values())


def test_one_connection_serves_many_requests_and_chunked_bodies(service: Service) -> None:
    connection = service.connect()
    first = service.ask(ITEM, connection=connection)
    socket = connection.sock
    assert service.ask({"bad": 1}, connection=connection).status == 422
    connection.request(
        "POST",
        "/predict",
        iter([b'{"question": "When?", ', b'"context": "In 1931."}']),
        {"Content-Type": "application/json"},
        encode_chunked=True,
    )
    assert connection.getresponse().read() == service.ask({"question": "When?", "context": "In 1931."}).data
    assert service.ask(ITEM, connection=connection).data == first.data
    assert connection.sock is socket
    connection.close()


def test_answers_do_not_depend_on_other_items(start: Start, service: Service) -> None:
    """With one thread and a small token budget, a list has the answers of its items."""
    narrow = start(QA_THREADS="1", QA_TOKEN_BUDGET="16")
    assert narrow.ask([ITEM, OTHER]).body == [service.ask(ITEM).body, service.ask(OTHER).body]
