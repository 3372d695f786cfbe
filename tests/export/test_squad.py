"""SQuAD files and the official scores."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from export.squad import (
    REPORTED,
    Answer,
    DataError,
    best_null_threshold,
    exact_match,
    f1,
    normalise,
    read_squad,
)

CONTEXT = "The old mill stands by the river. 🌊 It was built in 1704 by Ada Brook."


def write(path: Path, questions: list[Any], context: object = CONTEXT) -> Path:
    article = {"title": "Mill", "paragraphs": [{"context": context, "qas": questions}]}
    path.write_text(json.dumps({"version": "1.1", "data": [article]}), encoding="utf-8")
    return path


def entry(name: str, *answers: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"id": name, "question": "When was it built?", "answers": list(answers), **more}


def answer(text: str, start: int | None = None) -> dict[str, Any]:
    return {"text": text, "answer_start": CONTEXT.index(text) if start is None else start}


class TestReading:
    def test_v1(self, tmp_path: Path) -> None:
        file = read_squad(write(tmp_path / "a.json", [entry("q", answer("1704"), answer("in 1704"))]))
        (question,) = file.questions
        assert (file.bad_count, question.id, question.title, question.context) == (0, "q", "Mill", CONTEXT)
        assert question.answers == (
            Answer("1704", CONTEXT.index("1704")),
            Answer("in 1704", CONTEXT.index("in 1704")),
        )
        assert question.golds == ("1704", "in 1704")
        assert question.trainable

    def test_v2(self, tmp_path: Path) -> None:
        questions = [
            entry("answered", answer("1704"), is_impossible=False),
            entry("not", is_impossible=True, plausible_answers=[answer("Ada Brook")]),
        ]
        file = read_squad(write(tmp_path / "a.json", questions))
        assert file.bad_count == 0
        assert [question.is_impossible for question in file.questions] == [False, True]
        assert file.questions[1].answers == ()
        assert file.questions[1].golds == ()
        assert file.questions[1].trainable

    def test_a_byte_order_mark_is_accepted(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.json", [entry("q", answer("1704"))])
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(read_squad(path).questions) == 1

    @pytest.mark.parametrize(
        ("record", "reason"),
        [
            (entry("q", answer("1704", 3)), "answer_start 3"),
            (entry("q", answer("1704", -4)), "answer_start -4"),
            (entry("q", {"text": "1704"}), '"answer_start" is missing'),
            (entry("q", {"text": "1704", "answer_start": "51"}), '"answer_start" is missing or no int'),
            (entry("q", {"text": "1704", "answer_start": True}), '"answer_start" is missing or no int'),
            (entry("q", {"text": " ", "answer_start": 3}), '"text" is empty'),
            (entry("q", {"answer_start": 3}), '"text" is missing'),
            (entry("q"), "no answer"),
        ],
    )
    def test_a_bad_answer_is_counted_and_not_trained_on(
        self, tmp_path: Path, record: dict[str, Any], reason: str
    ) -> None:
        file = read_squad(write(tmp_path / "a.json", [record, entry("good", answer("1704"))]))
        assert [question.id for question in file.questions if question.trainable] == ["good"]
        assert file.bad_count == 1
        assert file.first_bad[0].id == "q"
        assert reason in file.first_bad[0].reason

    @pytest.mark.parametrize(
        ("record", "name", "reason"),
        [
            ({"id": "q", "answers": []}, "q", '"question" is missing'),
            ({"question": "Who?", "answers": []}, "article 0, paragraph 0, question 0", '"id" is missing'),
            ({"id": "q", "question": "Who?"}, "q", '"answers" is missing'),
            ({"id": "q", "question": "Who\ud800?", "answers": []}, "q", "no valid Unicode"),
            ("q", "article 0, paragraph 0, question 0", "no JSON object"),
            (entry("q", answer("1704"), is_impossible=True), "q", "marked impossible but has answers"),
            (entry("q", answer("1704"), is_impossible="no"), "q", "not true or false"),
        ],
    )
    def test_a_bad_question_is_counted_and_skipped(
        self, tmp_path: Path, record: object, name: str, reason: str
    ) -> None:
        file = read_squad(write(tmp_path / "a.json", [record, entry("good", answer("1704"))]))
        assert [question.id for question in file.questions] == ["good"]
        assert file.bad_count == 1
        assert file.first_bad[0].id == name
        assert reason in file.first_bad[0].reason

    def test_a_question_keeps_its_good_answers_and_all_golds(self, tmp_path: Path) -> None:
        file = read_squad(write(tmp_path / "a.json", [entry("q", answer("1704", 0), answer("in 1704"))]))
        assert [a.text for a in file.questions[0].answers] == ["in 1704"]
        assert file.questions[0].golds == ("1704", "in 1704")
        assert file.bad_count == 1

    def test_a_bad_paragraph_is_one_bad_record(self, tmp_path: Path) -> None:
        file = read_squad(write(tmp_path / "a.json", [entry("q", answer("1704"))], context=None))
        assert (file.questions, file.bad_count) == ((), 1)
        assert file.first_bad[0].id == "article 0, paragraph 0"

    def test_only_the_first_bad_records_are_kept(self, tmp_path: Path) -> None:
        file = read_squad(write(tmp_path / "a.json", [entry(str(i), answer("1704", 0)) for i in range(9)]))
        assert file.bad_count == 9
        assert [bad.id for bad in file.first_bad] == [str(i) for i in range(REPORTED)]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b'{"data": [', "is not JSON"),
            (b"\xff\xfe{}", "is not JSON in UTF-8"),
            (b"[" * 100_000, "is not JSON"),
            (b"[]", "is not a SQuAD file"),
            (b'{"data": {}}', "is not a SQuAD file"),
        ],
    )
    def test_a_file_that_is_not_squad(self, tmp_path: Path, content: bytes, reason: str) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"a.json {reason}") as caught:
            read_squad(path)
        assert "\n" not in str(caught.value)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.json cannot be read: No such file"):
            read_squad(tmp_path / "none.json")
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            read_squad(tmp_path)


class TestScores:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("The Cat", "cat"),
            ("a an the theatre", "theatre"),
            ("U.S.A.", "usa"),
            ("  well-known\tfact\n", "wellknown fact"),
            ("Ångström «the» Café", "ångström « » café"),  # only ASCII punctuation is removed
            ("a-b", "ab"),  # punctuation is removed first, so this "a" is not an article
            ("the 'an'", ""),
        ],
    )
    def test_normalisation(self, text: str, expected: str) -> None:
        assert normalise(text) == expected

    def test_exact_match_is_of_any_gold(self) -> None:
        assert exact_match("the Old Mill!", ["a river", "old mill"]) == 1
        assert exact_match("mill", ["a river", "old mill"]) == 0

    def test_f1_is_the_best_over_the_golds(self) -> None:
        assert f1("the old mill", ["old stone mill", "river"]) == pytest.approx(0.8)
        assert f1("old old mill", ["old mill mill"]) == pytest.approx(2 / 3)  # tokens are counted, not a set
        assert f1("sea", ["old mill"]) == 0

    def test_no_answer(self) -> None:
        for score in (exact_match, f1):
            assert score("", []) == 1
            assert score("mill", []) == 0
            assert score("", ["mill"]) == 0
            assert score("", ["the"]) == 1  # a gold answer that normalises to nothing is ignored


class TestThreshold:
    def test_the_best_threshold_is_found(self) -> None:
        odds = {"a": -3.0, "b": -1.0, "c": 0.5, "d": 4.0}
        golds: dict[str, list[str]] = {"a": ["mill"], "b": [], "c": ["river"], "d": []}
        predictions = {"a": "mill", "b": "wrong", "c": "the river bank", "d": "wrong"}
        # Answering a: 1 + 1 (d) + 1 (b) = 3; up to c: 1 + 2/3 + 1 (d) = 2.67; all: 1.67.
        assert best_null_threshold(odds, predictions, golds) == (-3.0, 0.75)
        predictions["c"] = "river"
        golds["b"] = ["wrong side"]
        threshold, best = best_null_threshold(odds, predictions, golds)
        assert threshold == 0.5
        assert best == pytest.approx((1 + 2 / 3 + 1 + 1) / 4)

    def test_equal_odds_are_not_separated(self) -> None:
        golds: dict[str, list[str]] = {"a": ["mill"], "b": []}
        threshold, best = best_null_threshold({"a": 1.0, "b": 1.0}, {"a": "mill", "b": "wrong"}, golds)
        assert best == 0.5
        assert threshold < 1.0

    @pytest.mark.parametrize("low", [-2.0, 0.25])
    def test_never_answering_may_be_best(self, low: float) -> None:
        golds: dict[str, list[str]] = {"a": [], "b": ["mill"]}
        threshold, best = best_null_threshold({"a": low, "b": 3.0}, {"a": "x", "b": "y"}, golds)
        assert best == 0.5
        assert threshold < low
        assert math.isfinite(threshold)

    def test_the_threshold_gives_the_reported_score(self) -> None:
        odds = {str(i): ((i * 37) % 11) / 4 - 1 for i in range(40)}
        golds = {str(i): [] if i % 3 == 0 else ["old mill"] for i in range(40)}
        predictions = {str(i): ("mill", "old mill", "river")[i % 5 % 3] for i in range(40)}

        def score(threshold: float) -> float:
            given = {name: predictions[name] if odds[name] <= threshold else "" for name in odds}
            return sum(f1(given[name], golds[name]) for name in odds) / len(odds)

        threshold, best = best_null_threshold(odds, predictions, golds)
        assert score(threshold) == pytest.approx(best)
        assert best == pytest.approx(max(score(candidate) for candidate in [-9.0, *odds.values()]))

    def test_different_questions_are_rejected(self) -> None:
        with pytest.raises(ValueError, match="same questions"):
            best_null_threshold({"a": 1.0}, {"b": "x"}, {"a": []})
        with pytest.raises(ValueError, match="at least one"):
            best_null_threshold({}, {}, {})
