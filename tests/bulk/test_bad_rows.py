"""Invalid rows are listed, counted and omitted; errors of files and flags are one sentence."""

import json
from pathlib import Path

import pytest

from tests.bulk.conftest import bulk, make_rows, read_jsonl, write_csv, write_jsonl, write_parquet

GOOD = make_rows(4)
SECRET = "Zanzibar-4711"  # noqa: S105 - a text that no error report may contain


def test_invalid_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [json.dumps(row).encode() for row in GOOD]
    bad = [
        (SECRET.encode(), None, "not valid JSON"),
        (b'["a list"]', None, "not a JSON object"),
        (b'{"question": "Who?"}', "context", "missing"),
        (b'{"question": 3, "context": "x"}', "question", "not a string"),
        (b'{"question": "", "context": "x"}', "question", "empty"),
        (b'{"question": "\\ud800", "context": "x"}', None, "not valid JSON"),
        (b'{"question": "\xff", "context": "x"}', None, "not valid JSON"),
        (b"[" * 5000, None, "not valid JSON"),
        (b'{"question": "Who?", "context": "x", "prediction": 1}', "prediction", "--answer-column"),
        (b'{"question": "Who?", "context": "' + b"x" * (17 << 20) + b'"}', None, "longer than 16 MiB"),
    ]
    source = tmp_path / "in.jsonl"
    lines = good[:1] + [line for line, _, _ in bad] + good[1:]
    source.write_bytes(b"\n\n".join(lines))  # so that row n is in line 2n - 1
    assert bulk(source, tmp_path / "out.jsonl", "--fail-on-errors") == 1
    assert [row["id"] for row in read_jsonl(tmp_path / "out.jsonl")] == [row["id"] for row in GOOD]
    reported = read_jsonl(tmp_path / "out.jsonl.errors.jsonl")
    assert len(reported) == len(bad)
    for number, (problem, (_, field, reason)) in enumerate(zip(reported, bad, strict=True), 2):
        assert problem["row"] == number
        assert problem["line"] == 2 * number - 1
        assert problem.get("field") == field
        assert reason in problem["reason"]
        assert SECRET not in json.dumps(problem)
    printed = capsys.readouterr().out
    assert "4 rows answered" in printed
    assert f"{len(bad)} invalid rows" in printed


def test_invalid_csv_rows(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(
        b"id,question,context\n"
        b"1,Who?,Ann did.\n"
        b"2,Who?\n"
        b"3,Who?,Bo did.,more\n"
        b"4,Who \xff?,Bo did.\n"
        b'5,,"A context\nof two lines."\n'
        b"6,Who?,Cy did.\n"
    )
    assert bulk(source, tmp_path / "out.csv", "--errors", str(tmp_path / "bad.jsonl")) == 0
    assert [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()] == [
        "id",
        "1",
        "6",
    ]
    reported = read_jsonl(tmp_path / "bad.jsonl")
    assert [(problem["row"], problem["line"]) for problem in reported] == [(2, 3), (3, 4), (4, 5), (5, 7)]
    assert [problem.get("id") for problem in reported] == [None, None, "4", "5"]
    assert "has 2 fields, the header 3" in reported[0]["reason"]
    assert reported[2]["field"] == reported[3]["field"] == "question"


def test_malformed_parts_of_squad(tmp_path: Path) -> None:
    good = {"context": "Ann did it.", "qas": [{"id": "a", "question": "Who?"}]}
    content = {
        "data": [
            {"title": "t", "paragraphs": [good, {"context": "no questions"}, "no paragraph"]},
            "no article",
            {"paragraphs": [{"qas": [{"id": "b", "question": "Who?"}]}, {"context": "x", "qas": [4]}]},
            {
                "paragraphs": [
                    {"context": "Bo did it.", "qas": [{"id": "c", "question": "Who?"}, {"id": "d"}]}
                ]
            },
        ]
    }
    source = tmp_path / "in.json"
    source.write_text(json.dumps(content))
    assert bulk(source, tmp_path / "out.json") == 0
    out = json.loads((tmp_path / "out.json").read_text())
    kept = [
        question["id"]
        for article in out["data"]
        if isinstance(article, dict)
        for paragraph in article["paragraphs"]
        if isinstance(paragraph, dict)
        for question in paragraph.get("qas", [])
    ]
    assert kept == ["a", "c"]
    reported = read_jsonl(tmp_path / "out.json.errors.jsonl")
    assert [problem["row"] for problem in reported] == [2, 3, 4, 5, 6, 8]
    assert [problem.get("id") for problem in reported] == [None, None, None, "b", None, "d"]


def test_nulls_and_empty_strings_of_parquet(tmp_path: Path) -> None:
    rows = [*GOOD[:2], {**GOOD[2], "question": None}, {**GOOD[3], "context": ""}]
    source = write_parquet(tmp_path / "in.parquet", rows)
    assert bulk(source, tmp_path / "out.parquet") == 0
    reported = read_jsonl(tmp_path / "out.parquet.errors.jsonl")
    assert [(problem["row"], problem["field"]) for problem in reported] == [(3, "question"), (4, "context")]


def test_invalid_utf8_in_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    questions = pa.array([b"Who?", b"Wh\xff?", b"Who?"], pa.binary()).view(pa.string())
    table = pa.table({"question": questions, "context": ["Ann did.", "Bo did.", "Cy did."]})
    parquet.write_table(table, tmp_path / "in.parquet")
    assert bulk(tmp_path / "in.parquet", tmp_path / "out.parquet") == 0
    (problem,) = read_jsonl(tmp_path / "out.parquet.errors.jsonl")
    assert (problem["row"], problem["reason"]) == (2, "The row has a text that is not UTF-8.")
    kept = parquet.read_table(tmp_path / "out.parquet").column("context").to_pylist()
    assert kept == ["Ann did.", "Cy did."]


def test_corrupt_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", make_rows(500))
    content = bytearray(source.read_bytes())
    content[1000:3000] = b"\xff" * 2000
    source.write_bytes(content)
    assert bulk(source, tmp_path / "out.parquet") == 2
    assert f"qa-onnx: {source} is corrupt: " in capsys.readouterr().err


def test_predictions_need_ids(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [GOOD[0], {**GOOD[1], "id": None}])
    assert bulk(source, tmp_path / "out.json", "--output-format", "predictions") == 0
    assert list(json.loads((tmp_path / "out.json").read_text())) == [GOOD[0]["id"]]
    (problem,) = read_jsonl(tmp_path / "out.json.errors.jsonl")
    assert (problem["row"], problem["field"]) == (2, "id")


def test_rows_that_are_invalid_for_the_parameters(tmp_path: Path) -> None:
    long = {**GOOD[1], "question": "Who built it, and when, and where, and why was it built at all?"}
    source = write_jsonl(tmp_path / "in.jsonl", [GOOD[0], long])
    assert bulk(source, tmp_path / "out.jsonl", "--max-seq-len", "16", "--doc-stride", "2") == 0
    (problem,) = read_jsonl(tmp_path / "out.jsonl.errors.jsonl")
    assert (problem["row"], problem["field"]) == (2, "parameters.max_seq_len")


@pytest.mark.parametrize(
    ("name", "output", "flags", "sentence"),
    [
        ("in.csv", "out.csv", ["--question-column", "q"], "has no column q, only id, question, context"),
        ("in.csv", "out.csv", ["--answer-column", "id"], "already has a column id"),
        ("in.csv", "out.parquet", [], "The input is csv and the output parquet"),
        ("in.csv", "out.txt", [], "is not that of a format: set --output-format"),
        ("in.csv", "in.csv", [], "must be three different files"),
        ("in.csv", "there/out.csv", [], "No such file or directory"),
        ("in.csv", "out.csv", ["--top-k", "0"], "top_k must be at least 1"),
        ("in.csv", "out.csv", ["--delimiter", ";;"], "one character"),
        ("in.csv", "out.csv", ["--model", "nowhere"], "There is no model folder"),
        ("none.csv", "out.csv", [], "There is no file"),
        ("cut.json", "out.json", [], "is not valid JSON"),
        ("in.jsonl", "out.parquet", ["--input-format", "parquet"], "is not a Parquet file"),
        ("list.json", "out.json", [], "has no list named data, so it is not a SQuAD file"),
        ("utf16.csv", "out.csv", [], "is UTF-16: convert it to UTF-8"),
        ("twice.csv", "out.csv", [], "has several columns question"),
        ("in.csv", "folder/out.csv", ["--errors", "/dev/null"], "/dev/null is not a regular file"),
        ("in.csv", "folder", ["--output-format", "csv"], "is not a regular file"),
    ],
)
def test_invalid_files_and_flags_give_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    output: str,
    flags: list[str],
    sentence: str,
) -> None:
    if "parquet" in flags:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    write_csv(tmp_path / "in.csv", GOOD)
    write_jsonl(tmp_path / "in.jsonl", GOOD)
    (tmp_path / "cut.json").write_text('{"data": [{"paragraphs": [')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "utf16.csv").write_text("question,context\n", encoding="utf-16")
    (tmp_path / "twice.csv").write_text("question,context,question\n")
    (tmp_path / "folder").mkdir()
    before = set(tmp_path.rglob("*"))
    assert bulk(tmp_path / name, tmp_path / output, *flags) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.startswith("qa-onnx: ")
    assert printed.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before  # neither an output nor a journal
