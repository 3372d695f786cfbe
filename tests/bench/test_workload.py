"""The questions of a benchmark: built in, from files, and truncated to a length in tokens."""

import json
from pathlib import Path

import pytest

from service.bench.workload import load, of_length
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import Artifact, load_artifact
from service.engine.parameters import Parameters
from service.errors import QAError

ROOT = Path(__file__).resolve().parents[2]
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "The bridge was opened in 1931.",
                    "qas": [
                        {"id": "1", "question": "When?", "answers": []},
                        {"id": "2", "question": "", "answers": []},
                    ],
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return load_artifact(ROOT / "tests/models/tiny-int8")


def test_built_in_questions(artifact: Artifact) -> None:
    items = load(None, artifact)
    assert len(items) > 20
    assert len({item.tokens for item in items}) > 5


def test_files(artifact: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "squad.json"
    file.write_text(json.dumps(SQUAD))
    (item,) = load(file, artifact)
    assert (item.question, item.context) == ("When?", "The bridge was opened in 1931.")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"question": "Who?", "context": "Ann."}\n\n{"question": "Why?", "context": "So."}\n')
    assert [item.question for item in load(lines, artifact)] == ["Who?", "Why?"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"question": "Q"}', '{"data": 7}', "no json"])
def test_invalid_files_are_named_in_the_error(text: str, artifact: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(QAError, match=r"bad\.json"):
        load(file, artifact)
    with pytest.raises(QAError, match=r"none\.json"):
        load(tmp_path / "none.json", artifact)


@pytest.mark.parametrize("tokens", [40, 100, 384])
def test_lengths_are_exact(tokens: int, artifact: Artifact) -> None:
    answerer = QuestionAnswerer(artifact, threads=1)
    items = of_length(load(None, artifact), tokens, artifact)
    for item in items:
        (window,) = answerer.prepare(item.question, item.context, Parameters()).windows
        assert len(window.ids) == tokens


def test_an_impossible_length_is_rejected(artifact: Artifact) -> None:
    with pytest.raises(QAError, match="5 tokens"):
        of_length(load(None, artifact), 5, artifact)
