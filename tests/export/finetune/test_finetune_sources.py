"""Training files: formats, samples, held-out articles, and candidate answers."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from export.finetune.__main__ import main
from export.finetune.batches import collate
from export.finetune.examples import build_examples, build_features
from export.finetune.sources import Source, parse_source, read_all, write_squad
from export.finetune.training import linked_targets, span_loss
from export.squad import DataError, read_squad
from tests.export.finetune.rooms import command, paragraphs

CONTEXT = "The red box holds a lamp. The blue box holds a key."
LINE = {
    "doc": 7,
    "context": CONTEXT,
    "candidates": [[20, 24], [18, 24], [47, 50]],
    "questions": [
        {"question": "What does the red box hold?", "answerable_est": True},
        {"question": "What does the green box hold?", "answerable_est": False},
    ],
}


def lines(path: Path, *records: object) -> Path:
    text = "\n".join(json.dumps(record) for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


class TestReading:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
    def test_candidates(self, tmp_path: Path, name: str) -> None:
        bad = LINE | {"candidates": [[40, 400]]}
        path = lines(tmp_path / name, LINE, bad, {"no": "context"})
        (file,), held = read_all([Source(path)], [], 0)
        first, second = file.questions
        assert [answer.text for answer in first.answers] == ["lamp", "a lamp", "key"]
        assert (first.one_of, first.is_impossible, first.title) == (True, False, "7")
        assert (second.one_of, second.is_impossible, second.answers) == (False, True, ())
        assert [record.id for record in file.first_bad] == ["line 2", "line 3"]
        assert held == []

    def test_an_invalid_gzip_file_is_rejected(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl.gz"
        path.write_text("{}")
        with pytest.raises(DataError, match="cannot be read"):
            read_all([Source(path)], [], 0)

    @pytest.mark.parametrize(
        ("text", "source"),
        [
            ("a.json", Source(Path("a.json"))),
            ("a.json@0.25", Source(Path("a.json"), 0.25)),
            ("me@home/a.json", Source(Path("me@home/a.json"))),
        ],
    )
    def test_a_share_follows_an_at_sign(self, text: str, source: Source) -> None:
        assert parse_source(text) == source

    @pytest.mark.parametrize("text", ["a@0", "a@1.5", "a@nan"])
    def test_a_share_out_of_range(self, text: str) -> None:
        with pytest.raises(ValueError, match="share"):
            parse_source(text)

    def test_a_share_is_a_seeded_sample(self, squad: Path) -> None:
        def taken(seed: int) -> list[str]:
            (file,), _ = read_all([Source(squad, 0.25)], [], seed)
            return [question.id for question in file.questions]

        assert len(taken(1)) == 10
        assert taken(1) == taken(1)
        assert taken(1) != taken(2)

    def test_articles_held_out_of_every_file(self, squad: Path, tmp_path: Path) -> None:
        path = lines(tmp_path / "a.jsonl", LINE, LINE | {"doc": "Rooms"})
        files, held = read_all([Source(squad, 0.5), Source(path)], ["Rooms"], 0)
        assert [len(file.questions) for file in files] == [0, 2]
        assert len(held) == 41  # questions with candidates have no gold answer, so they are not included
        assert sum(question.is_impossible for question in held) == 1
        with pytest.raises(DataError, match="titled Cellar"):
            read_all([Source(squad)], ["Rooms", "Cellar"], 0)

    def test_held_out_questions_are_a_squad_file(self, squad: Path, tmp_path: Path) -> None:
        _, held = read_all([Source(squad)], ["Rooms"], 0)
        path = tmp_path / "held-out.json"
        write_squad(path, held)
        again = read_squad(path)
        assert again.bad_count == 0

        def known(questions: Any) -> list[Any]:
            return sorted((q.context, q.question, q.answers, q.is_impossible) for q in questions)

        assert known(again.questions) == known(held)


class TestLinking:
    @pytest.fixture
    def batch_of(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[[object], Any]:
        def make(*records: object) -> Any:
            files, _ = read_all([Source(lines(tmp_path / "a.jsonl", *records))], [], 0)
            features = list(build_features(build_examples(files[0], 0, ""), tokenizer, 128, 32))
            return features, collate(features, None, 0)

        return make

    def test_the_likeliest_candidate_becomes_the_target(self, batch_of: Callable[[object], Any]) -> None:
        (feature, impossible), batch = batch_of(LINE)
        logits = torch.zeros(*batch.ids.shape, 2)
        logits[0, feature.starts[2], 0] = logits[0, feature.ends[2], 1] = 5.0  # "key"
        targets = linked_targets(logits, batch)
        assert targets[0].nonzero().tolist() == sorted([[feature.starts[2], 0], [feature.ends[2], 1]])
        assert torch.allclose(targets.sum(dim=1), torch.ones(2, 2))
        assert targets[1, impossible.cls_at].tolist() == [1, 1]

    def test_without_a_likely_candidate_there_is_no_gradient(self, batch_of: Callable[[object], Any]) -> None:
        (feature, impossible), batch = batch_of(LINE)
        logits = torch.zeros(*batch.ids.shape, 2)
        logits[0, feature.starts[2], 0] = 0.5  # of three: e^0.5 / (e^0.5 + 2) = 0.45
        targets = linked_targets(logits, batch)
        assert targets[0].count_nonzero() == 0
        assert targets[1, impossible.cls_at].tolist() == [1, 1]
        logits.requires_grad_()
        span_loss(logits, batch, 0.5, 2).backward()
        assert logits.grad is not None
        assert logits.grad[0].count_nonzero() == 0
        assert logits.grad[1].count_nonzero() > 0

    def test_windows_with_only_some_candidates_are_skipped(self, batch_of: Callable[[object], Any]) -> None:
        context = CONTEXT + " The box is small." * 60
        far = len(context) - 6
        asked = LINE | {"context": context, "questions": LINE["questions"][:1]}  # type: ignore[index]
        whole, _ = batch_of(asked)
        assert len(whole) > 2  # the first holds all candidates, the others none
        assert [feature.starts == (feature.cls_at,) for feature in whole[:2]] == [False, True]
        parted, _ = batch_of(asked | {"candidates": [[20, 24], [far, far + 5]]})
        assert len(parted) == len(whole) - 2


def test_training_on_candidates_with_held_out_articles(
    bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {
            "doc": i,
            "context": room["context"],
            "candidates": [
                [answer["answer_start"], answer["answer_start"] + len(answer["text"])]
                for entry in room["qas"]
                for answer in entry["answers"]
            ],
            "questions": [{"question": q["question"], "answerable_est": True} for q in room["qas"]],
        }
        for i, room in enumerate(paragraphs())
    ]
    path = lines(tmp_path / "rooms.jsonl.gz", *records)
    output = tmp_path / "out"
    arguments = command(bert, path, output, "--hold-out", "3", "Rooms", "--schedule", "cosine")
    arguments.insert(arguments.index("--train") + 1, f"{squad}@0.5")
    assert main(arguments) == 0
    assert "questions: 38" in capsys.readouterr().err  # 19 rooms; the whole of the other file is held out
    assert len(read_squad(output / "held-out.json").questions) == 40
    record = json.loads((output / "training.json").read_text())
    assert [source["share"] for source in record["arguments"]["train"]] == [0.5, 1.0]
    assert record["arguments"]["hold_out"] == ["3", "Rooms"]
