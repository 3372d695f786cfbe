"""`python -m service bench` from the command line: engine and server; table, JSON and HTML reports."""

import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.service.conftest import MODEL, ROOT, environment


def bench(python: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "service", "bench", "--model", MODEL, *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment(),
    )


def test_both_modes_with_all_reports(runtime_python: Path, tmp_path: Path) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    quick = ("--seconds", 0.3, "--warm-up", 0.1, "--concurrency", "1,2", "--lengths", "40,80")
    loads = ("--rate", 20, "--overload", 2)
    done = bench(runtime_python, *quick, *loads, "--json", figures, "--html", page)
    assert done.returncode == 0, done.stderr
    report = json.loads(figures.read_text())
    rows = report["scenarios"]
    assert len(rows) == 3 * 2 + 2 + 1 + 3 * 2
    loops = [row for row in rows if (row["target"], row["rate"], row["tokens"]) == ("http", None, None)]
    peak = max(row["per_second"] for row in loops)
    assert [row["rate"] for row in rows if row["rate"]] == [20, 20, pytest.approx(2 * peak, abs=0.1)]
    assert {row["target"] for row in rows} == {"session", "engine", "http"}
    for row in rows:
        assert row["answered"] > 0
        assert row["failed"] == 0
        assert row["p50"] <= row["p90"] <= row["p99"] <= row["max"]
        assert ("infer_p50" in row) == (row["target"] == "http")
    assert report["machine"]["cpus"] >= 1
    assert report["model"]["sha256"]
    assert "answers/s" in done.stdout
    text = page.read_text()
    HTMLParser().feed(text)
    assert text.count("<svg") == 3
    assert "http://" not in text  # no external resources
    assert "<script" not in text


def test_errors_of_bench_are_one_sentence(runtime_python: Path, tmp_path: Path) -> None:
    for flags in (("--questions", tmp_path / "none"), ("--url", "ftp://nonsense"), ("--lengths", "3")):
        done = bench(runtime_python, *flags, "--mode", "http", "--seconds", 0.1)
        assert done.returncode == 2, done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("qa-onnx: ")
        assert "Traceback" not in done.stderr


def test_requests_without_a_server_are_counted_as_failed(runtime_python: Path, free_port: int) -> None:
    flags = ("--mode", "http", "--url", f"http://127.0.0.1:{free_port}", "--concurrency", 1)
    done = bench(runtime_python, *flags, "--seconds", 0.1, "--warm-up", 0.1)
    assert done.returncode == 1
    assert "got neither an answer nor a rejection" in done.stderr
