"""The null threshold chosen on held-out questions, and the scores by kind of question."""

import math
from pathlib import Path

import pytest

from export.calibrate import calibrate
from export.errors import ExportError
from export.evaluate import Asked
from export.kinds import answer_kind, context_length, first_word, main, tables
from export.squad import Answer, Question
from tests.export.conftest import ROOT
from tests.export.test_squad import CONTEXT, answer, entry, write

SMALL = ROOT / "tests/models/tiny-int8"


def asked(null_odds: float, gold: str = "", found: str = "1704", question: str = "When?") -> Asked:
    answers = (Answer(gold, 0),) if gold else ()
    golds = (gold,) if gold else ()
    return Asked(
        Question(f"{null_odds} {gold}", "", question, CONTEXT, answers, golds, not gold),
        found,
        0.5,
        null_odds,
    )


class TestCalibration:
    def test_the_best_f1_with_both_kinds_weighed_equally(self) -> None:
        answerable = [asked(odds, "1704") for odds in (-9, -8, -7, 2)]
        impossible = [asked(odds) for odds in (-1, 0, 1, 5, 6, 7, 8, 9)]
        found = calibrate([*answerable, *impossible], 1.0)
        assert found.null_threshold == -7
        assert (found.wrongly_none, found.rightly_none) == (0.25, 1.0)
        assert found.f1 == pytest.approx((0.75 + 1) / 2)
        assert (found.answerable, found.unanswerable) == (4, 8)

    def test_the_share_of_answerable_questions_declined_is_bounded(self) -> None:
        answerable = [asked(odds, "1704") for odds in (-9, -8, -7, 2)]
        impossible = [asked(odds) for odds in (-1, 0, 1, 5)]
        found = calibrate([*answerable, *impossible], 0.2)
        assert found.null_threshold == 2
        assert (found.wrongly_none, found.rightly_none) == (0.0, 0.25)

    def test_questions_of_equal_odds_are_not_separated(self) -> None:
        found = calibrate([asked(0, "1704"), asked(0), asked(0)], 1.0)
        assert found.null_threshold == 0
        assert (found.wrongly_none, found.rightly_none) == (0.0, 0.0)

    def test_a_wrong_answer_does_not_raise_f1(self) -> None:
        found = calibrate([asked(-9, "1704"), asked(-2, "1704", found="by Ada Brook"), asked(-3)], 1.0)
        assert found.null_threshold == -9
        assert found.f1 == pytest.approx((0.5 + 1) / 2)

    @pytest.mark.parametrize("questions", [[asked(0)], [asked(0, "1704")], []])
    def test_both_kinds_are_needed(self, questions: list[Asked]) -> None:
        with pytest.raises(ExportError, match="with and without an answer"):
            calibrate(questions, 0.1)


class TestKinds:
    @pytest.mark.parametrize(
        ("question", "word"),
        [
            ("How many mills are there?", "how many"),
            ("In what year was it built?", "what"),
            ("Built when?", "when"),
            ("Name the river.", "other"),
            ("Is whatever somehow there?", "other"),
        ],
    )
    def test_question_words(self, question: str, word: str) -> None:
        assert first_word(question) == word

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("4 May 1704", "date"),
            ("in March", "date"),
            ("12 litres", "number"),
            ("Ada Brook", "name"),
            ("the old mill", "phrase"),
            ("because the river had risen too far", "clause"),
        ],
    )
    def test_answers(self, text: str, kind: str) -> None:
        assert answer_kind(text) == kind

    @pytest.mark.parametrize(
        ("words", "bucket"), [(1, "1-100 words"), (101, "101-150 words"), (301, "over 300 words")]
    )
    def test_contexts(self, words: int, bucket: str) -> None:
        assert context_length("word " * words) == bucket

    def test_the_tables(self) -> None:
        found = list(tables([asked(-5, "1704"), asked(1, "1704", found="1705"), asked(3), asked(-1)], 0.5))
        assert found[2] == "| all | 2 | 50.0 | 50.0 | 50.0 |"
        assert "| question word: when | 2 | 50.0 | 50.0 | 50.0 |" in found
        assert "| shipped (0.50) | 50.0 | 50.0 | 50.0 | 50.0 |" in found
        assert "| best on this file (-5.00) | 75.0 | 75.0 | 50.0 | 100.0 |" in found

    def test_without_unanswerable_questions_none_is_not_reported(self) -> None:
        assert not any("none" in line for line in tables([asked(math.inf, "1704")], None))

    def test_the_shipped_model(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        impossible = entry("b", is_impossible=True)
        file = write(tmp_path / "mill.json", [entry("a", answer("1704"), answer("in 1704")), impossible])
        assert main(["--model", str(SMALL), str(file)]) == 0
        out = capsys.readouterr().out
        assert "mill.json, 2 questions" in out
        assert "| answer: date | 1 |" in out

    def test_an_unusable_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--model", str(SMALL), "/no/such.json"]) == 2
        assert "/no/such.json cannot be read" in capsys.readouterr().err
