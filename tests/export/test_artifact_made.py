"""Artifacts of an export: the manifest, reproducible bytes, candidates evaluated by F1."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from tests.export.conftest import Export

CONTEXT = "The letter was written by Amelia Hart in the spring of 1902. It was found in Oslo."


def squad(file: Path, *, impossible: bool) -> Path:
    """A small SQuAD file; of version 2.0 with `impossible`."""
    answers = {"Who wrote the letter?": "Amelia Hart", "Where was it found?": "Oslo", "When?": "1902"}
    questions: list[dict[str, Any]] = [
        {"id": question, "question": question, "answers": [{"text": a, "answer_start": CONTEXT.index(a)}]}
        for question, a in answers.items()
    ]
    if impossible:
        for question in questions:
            question["is_impossible"] = False
        questions += [
            {"id": text, "question": text, "answers": [], "is_impossible": True}
            for text in ("Who found it?", "How long is it?")
        ]
    content = {
        "version": "2.0" if impossible else "1.1",
        "data": [{"title": "letter", "paragraphs": [{"context": CONTEXT, "qas": questions}]}],
    }
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize("recipe", ["plain-int8-per-channel", "fused-int8-per-channel"])
def test_the_same_source_gives_the_same_bytes(
    recipe: str, tiny: Path, tmp_path: Path, export: Export
) -> None:
    models = []
    for seed in ("1", "2"):  # the iteration order of sets of names differs between them
        output = tmp_path / seed
        done = export(
            *("--model", tiny, "--output", output, "--recipe", recipe),
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert done.returncode == 0, done.stderr
        models.append([(output / name).read_bytes() for name in ("model.onnx", "model.onnx.data")])
        for stage in ("source", "convert", "quantize", "verify", "evaluate"):
            assert any(line.startswith(stage) for line in done.stderr.splitlines()), done.stderr
        assert recipe in done.stderr
    assert models[0] == models[1]


def test_the_manifest_describes_the_export(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    flags = ("--recipe", "fused-int8-per-channel", "--max-seq-length", "200")
    assert main(["--model", str(tiny), "--output", str(output), *flags]) == 0
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["source"] == {"id": "tiny", "commit": None}
    assert (manifest["precision"], manifest["target"]) == ("int8", "portable")
    assert manifest["recipe"] == "fused-int8-per-channel"
    assert manifest["max_length"] == 200
    assert manifest["special_ids"] == {"cls": 2, "sep": 3, "pad": 0, "unk": 1}
    assert set(manifest["tools"]) >= {"torch", "transformers", "optimum", "onnxruntime"}
    assert set(manifest["files"]) == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    assert {path.name for path in output.iterdir()} == {*manifest["files"], "manifest.json"}
    assert manifest["quality"]["conversion_error"] < 1e-3
    (candidate,) = manifest["quality"]["candidates"]
    assert candidate["verdict"] == "chosen"


def test_candidates_are_judged_by_f1(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = squad(tmp_path / "squad.json", impossible=False)
    output = tmp_path / "out"
    flags = ("--evaluate", str(file), "--min-f1-ratio", "0")
    assert main(["--model", str(tiny), "--output", str(output), *flags]) == 0
    quality = json.loads((output / "manifest.json").read_text())["quality"]
    (evaluation,) = quality["evaluation"]
    assert (evaluation["file"], evaluation["questions"]) == ("squad.json", 3)
    assert 0 <= evaluation["chosen"]["f1"] <= 100
    assert json.loads((output / "manifest.json").read_text())["null_threshold"] is None
    speeds = [row["milliseconds_per_probe"] for row in quality["candidates"]]
    assert speeds == sorted(speeds)
    assert quality["candidates"][0]["verdict"] == "chosen"  # everything passes, so the fastest
    assert "verdict" in capsys.readouterr().err


def test_the_null_threshold_is_calibrated_on_another_file(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out, judged = (squad(tmp_path / name, impossible=True) for name in ("held-out.json", "dev.json"))
    output = tmp_path / "out"
    flags = ["--precision", "fp32", "--evaluate", str(judged), "--calibrate", str(held_out)]
    assert main(["--model", str(tiny), "--output", str(output), *flags, "--most-refused", "0"]) == 0
    manifest = json.loads((output / "manifest.json").read_text())
    calibration = manifest["quality"]["calibration"]
    assert manifest["null_threshold"] == pytest.approx(calibration["null_threshold"], abs=1e-4)
    assert calibration["file"] == "held-out.json"
    assert (calibration["answerable"], calibration["unanswerable"]) == (3, 2)
    assert calibration["wrongly_none"] == 0
    assert "calibrate" in capsys.readouterr().err
    # The evaluation still reports the best threshold for its own file.
    assert "null_threshold" in manifest["quality"]["evaluation"][0]["chosen"]


def test_unanswerable_questions_set_the_null_threshold(tiny: Path, tmp_path: Path) -> None:
    first = squad(tmp_path / "first.json", impossible=False)
    second = squad(tmp_path / "second.json", impossible=True)
    output = tmp_path / "out"
    flags = ["--precision", "fp32", "--evaluate", str(first), str(second)]
    assert main(["--model", str(tiny), "--output", str(output), *flags]) == 0
    manifest = json.loads((output / "manifest.json").read_text())
    rows = manifest["quality"]["evaluation"]
    assert [(row["file"], row["questions"]) for row in rows] == [("first.json", 3), ("second.json", 5)]
    assert "null_threshold" not in rows[0]["chosen"]
    assert rows[1]["chosen"]["null_threshold"] == manifest["null_threshold"]
    assert isinstance(manifest["null_threshold"], float)
    # The threshold is the service's default: with it the engine gives the answers that were scored.
    answerer = QuestionAnswerer(load_artifact(output))
    asked = Parameters(handle_impossible_answer=True)
    explicit = Parameters(handle_impossible_answer=True, null_threshold=manifest["null_threshold"])
    items = [("Who found it?", CONTEXT), ("When?", CONTEXT)]
    assert answerer.answer(items, asked) == answerer.answer(items, explicit)
