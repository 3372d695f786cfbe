"""Each input and output format: the same rows, in order, with the engine's answers."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from tests.bulk.conftest import (
    MODEL,
    WRITERS,
    Rows,
    bulk,
    left_over,
    make_rows,
    read_jsonl,
    write_csv,
    write_jsonl,
    write_parquet,
    write_squad,
)

ROWS = make_rows(70)


def answers(rows: Rows, parameters: Parameters | None = None) -> list[Any]:
    """The engine's answer to each row, in the output format."""
    parameters = parameters or Parameters()
    answerer = QuestionAnswerer(load_artifact(MODEL))
    found = answerer.answer([(row["question"], row["context"]) for row in rows], parameters)
    written = [
        [{"answer": a.answer, "start": a.start, "end": a.end, "score": a.score} for a in one] for one in found
    ]
    return written if parameters.top_k > 1 else [one[0] for one in written]


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    return answers(ROWS)


def test_json_lines_are_unchanged_except_for_the_added_field(tmp_path: Path, expected: list[Any]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    lines = source.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace('"weight": 1.5', '"weight" : 1.50e0 ').replace("}", "\t}  ")
    source.write_text("\ufeff" + "\r\n".join(lines) + "\n\n", encoding="utf-8")
    assert bulk(source, tmp_path / "out.jsonl") == 0
    out = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in out] == expected
    for before, after in zip(lines, out, strict=True):
        assert after.startswith(before.rstrip().removesuffix("}").rstrip() + ',"prediction":{')
    assert left_over(tmp_path, [source]) == {"out.jsonl"}


def test_csv_gets_four_columns(tmp_path: Path, expected: list[Any]) -> None:
    source = write_csv(tmp_path / "in.csv", ROWS)
    assert bulk(source, tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        out = list(csv.DictReader(file))
    assert [row["prediction"] for row in out] == [answer["answer"] for answer in expected]
    assert [float(row["prediction_score"]) for row in out] == [answer["score"] for answer in expected]
    for row, asked in zip(out, ROWS, strict=True):
        start, end = int(row["prediction_start"]), int(row["prediction_end"])
        assert asked["context"][start:end] == row["prediction"]
        assert {name: row[name] for name in asked} == {name: str(value) for name, value in asked.items()}


def test_delimiter_line_ends_bom_and_invalid_bytes_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_bytes(b'\xef\xbb\xbfq\tnote\tc\r\nWho?\tbytes \xff\xfe\t"Ann, or\t""Bo"", did it."\r\n')
    flags = ("--question-column", "q", "--context-column", "c", "--answer-column", "a", "--top-k", "2")
    assert bulk(source, tmp_path / "out.tsv", *flags) == 0
    head, body = (tmp_path / "out.tsv").read_bytes().split(b"\r\n", 1)
    assert head == b"\xef\xbb\xbfq\tnote\tc\ta"
    assert body.startswith(b'Who?\tbytes \xff\xfe\t"Ann, or\t""Bo"", did it."\t')
    assert body.endswith(b"\r\n")


def test_squad_with_a_byte_order_mark(tmp_path: Path) -> None:
    source = write_squad(tmp_path / "in.json", ROWS[:3])
    assert bulk(source, tmp_path / "out.json") == 0
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    assert bulk(source, tmp_path / "marked.json") == 0
    assert (tmp_path / "marked.json").read_bytes() == (tmp_path / "out.json").read_bytes()


def test_squad_gets_a_prediction_in_each_question(tmp_path: Path, expected: list[Any]) -> None:
    source = write_squad(tmp_path / "in.json", ROWS)
    assert bulk(source, tmp_path / "out.json") == 0
    before, after = json.loads(source.read_text()), json.loads((tmp_path / "out.json").read_text())
    asked = [q for article in after["data"] for p in article["paragraphs"] for q in p["qas"]]
    assert [question.pop("prediction") for question in asked] == expected
    assert after == before


def test_predictions_have_the_format_of_the_squad_evaluation(tmp_path: Path, expected: list[Any]) -> None:
    source = write_squad(tmp_path / "in.json", ROWS)
    assert bulk(source, tmp_path / "out.json", "--output-format", "predictions") == 0
    out = json.loads((tmp_path / "out.json").read_text())
    assert out == {row["id"]: answer["answer"] for row, answer in zip(ROWS, expected, strict=True)}
    assert list(out) == [row["id"] for row in ROWS]


def test_parquet_keeps_its_types_and_gets_a_struct(tmp_path: Path, expected: list[Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    source = write_parquet(tmp_path / "in.parquet", ROWS)
    assert bulk(source, tmp_path / "out.parquet") == 0
    before, after = parquet.read_table(source), parquet.read_table(tmp_path / "out.parquet")
    assert after.column("prediction").to_pylist() == expected
    assert after.drop_columns("prediction").equals(before)
    assert bulk(source, tmp_path / "out.jsonl") == 0
    assert [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")] == expected


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_any_input_can_become_json_lines(tmp_path: Path, kind: str, expected: list[Any]) -> None:
    source = WRITERS[kind](tmp_path / f"in.{kind}", ROWS)
    assert bulk(source, tmp_path / "out.jsonl") == 0
    out = read_jsonl(tmp_path / "out.jsonl")
    assert [row["prediction"] for row in out] == expected
    assert [(row["id"], row["context"]) for row in out] == [(row["id"], row["context"]) for row in ROWS]


@pytest.mark.parametrize("kind", WRITERS)
def test_several_answers_are_a_list(tmp_path: Path, kind: str) -> None:
    source = WRITERS[kind](tmp_path / f"in.{kind}", ROWS[:5])
    flags = ("--top-k", "3", "--handle-impossible-answer", "--max-answer-len", "4")
    assert bulk(source, tmp_path / f"out.{kind}", *flags) == 0
    wanted = answers(ROWS[:5], Parameters(top_k=3, handle_impossible_answer=True, max_answer_len=4))
    found: list[Any]
    if kind == "jsonl":
        found = [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")]
    elif kind == "csv":
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            found = [json.loads(row["prediction"]) for row in csv.DictReader(file)]
    elif kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found = parquet.read_table(tmp_path / "out.parquet").column("prediction").to_pylist()
    else:
        content = json.loads((tmp_path / "out.json").read_text())
        found = [q["prediction"] for a in content["data"] for p in a["paragraphs"] for q in p["qas"]]
    assert found == wanted


def test_an_input_without_rows(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("question,context\n")
    (tmp_path / "in.jsonl").write_text("\n")
    (tmp_path / "in.json").write_text('{"data": []}')
    for kind in ("csv", "jsonl", "json"):
        assert bulk(tmp_path / f"in.{kind}", tmp_path / f"out.{kind}") == 0
    header = "question,context,prediction,prediction_start,prediction_end,prediction_score\n"
    assert (tmp_path / "out.csv").read_text() == header
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert json.loads((tmp_path / "out.json").read_text()) == {"data": []}
