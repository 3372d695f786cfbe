"""`python -m benchmarks.sizes`: writes the table of this machine between the markers of a Markdown page."""

import re
import subprocess
from pathlib import Path

from tests.service.conftest import MODEL, ROOT, environment


def sizes(python: Path, page: Path) -> subprocess.CompletedProcess[str]:
    line = [
        python,
        "-m",
        "benchmarks.sizes",
        "--model",
        MODEL,
        "--cores",
        "1",
        "--seconds",
        "0.2",
        "--page",
        page,
    ]
    return subprocess.run(
        [str(word) for word in line], cwd=ROOT, capture_output=True, text=True, env=environment()
    )


def test_the_table_is_written_into_the_page(runtime_python: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- sizes -->\nold\n<!-- /sizes -->\nafter\n")
    done = sizes(runtime_python, page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text == f"before\n<!-- sizes -->\n{done.stdout.rstrip()}\n<!-- /sizes -->\nafter\n"
    (row,) = re.findall(r"^\| 1 \| (\d+) MB \| (\d+) MB \| (\d+) MB \| (.*) \| (.*) \|$", text, re.MULTILINE)
    started, highest, resting = map(int, row[:3])
    assert 0 < started <= highest
    assert 0 < resting <= highest
    for figures in row[3:]:
        assert len([float(figure) for figure in figures.split(", ")]) == 3


def test_a_page_without_markers_is_rejected(runtime_python: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    done = sizes(runtime_python, page)
    assert done.returncode == 1
    assert "no place marked <!-- sizes -->" in done.stderr
    assert page.read_text() == "no marks\n"
