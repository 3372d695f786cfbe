"""Runs the Python snippets and the bulk commands of the pages in docs/, except those for Ray."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from service.__main__ import main
from tests.bulk.conftest import make_rows, write_csv, write_jsonl, write_squad

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TINY, EXPORTED = ROOT / "tests/models/tiny", ROOT / "tests/models/tiny-fp32"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_snippets_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiny models replace those that the snippets name."""
    found = blocks("coming-from-transformers.md", "python")
    assert len(found) == 3
    if "from transformers" in found[number]:
        pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXPORTED, tmp_path / "models/mine")
    snippet = found[number].replace('"deepset/minilm-uncased-squad2"', repr(str(TINY)))
    exec(compile(snippet, f"snippet {number}", "exec"), {})  # noqa: S102 - our own page
    if number < 2:
        assert re.search(r"\S 0\.\d+ \d+ \d+\n", capsys.readouterr().out)


def test_bulk_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(5)
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "questions.csv", rows)
    write_jsonl(tmp_path / "questions.jsonl", rows)
    write_squad(tmp_path / "squad.json", rows)
    (tmp_path / "tickets.tsv").write_text("ask\tbody\nWho?\tAnn did it.\n")
    lines = [line for block in blocks("bulk.md", "") for line in block.splitlines()]
    local = [shlex.split(line) for line in lines if "--engine ray" not in line]
    assert len(local) == 3
    for program, *arguments in local:
        assert program == "qa-onnx"
        assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"answers.csv", "predictions.json", "answers.tsv"}
