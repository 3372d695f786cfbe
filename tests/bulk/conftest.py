"""Fixtures of the bulk tests: rows in every format, and the command that processes them."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/models/tiny-int8"
NAMES = ("Ingrid Solheim", "Amelia Hart", "José Núñez", "Wei-Lin Chao", "Ulrike Sørensen")

Rows = list[dict[str, Any]]


def make_rows(count: int) -> Rows:
    return [
        {
            "id": f"row-{number}",
            "question": f"Who built mill {number}?",
            "context": f'Mill {number}, "the old one", was built by {NAMES[number % 5]}\nin {1800 + number}.'
            + " It stands by the river." * (number % 7),
            "weight": 1.50,
        }
        for number in range(count)
    ]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_squad(path: Path, rows: Rows, per_article: int = 4) -> Path:
    articles = [
        {
            "title": f"Mills {first}",
            "paragraphs": [
                {
                    "context": row["context"],
                    "qas": [{"id": row["id"], "question": row["question"], "answers": []}],
                }
                for row in rows[first : first + per_article]
            ],
        }
        for first in range(0, len(rows), per_article)
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": articles}), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)
    return path


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "json": write_squad,
    "parquet": write_parquet,
}


def command(source: Path, output: Path, *flags: str) -> list[str]:
    """The command line of a bulk run."""
    files = ["--input", str(source), "--output", str(output)]
    return [sys.executable, "-m", "service", "bulk", *files, "--model", str(MODEL), *flags]


def bulk(source: Path, output: Path, *flags: str) -> int:
    """Run the command in this process; returns its exit status."""
    return main(command(source, output, *flags)[3:])


def read_jsonl(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left_over(folder: Path, known: Sequence[Path]) -> set[str]:
    """Names of the other files in `folder`."""
    return {path.name for path in folder.iterdir()} - {path.name for path in known}
