"""Restoring float weights from an int8 artifact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from export.restore import main
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.parameters import Parameters
from tests.export.conftest import ROOT

ARTIFACT = ROOT / "models/default"
QUESTION = "How long is the warranty of the pump?"
CONTEXT = "The pump comes with a two-year warranty; its hoses, which wear, are covered for six months."


def test_restored_weights_are_equivalent(tmp_path: Path) -> None:
    output = tmp_path / "restored"
    assert main(["--artifact", str(ARTIFACT), "--output", str(output)]) == 0
    answerer = QuestionAnswerer(load_artifact(ARTIFACT))
    prepared = answerer.prepare(QUESTION, CONTEXT, Parameters())
    (wanted,) = answerer.infer(prepared.windows)
    tokens = AutoTokenizer.from_pretrained(output)(QUESTION, CONTEXT, return_tensors="pt")
    assert tokens["input_ids"][0].tolist() == prepared.windows[0].ids.tolist()
    with torch.inference_mode():
        found = AutoModelForQuestionAnswering.from_pretrained(output)(**tokens)
    for ours, theirs in ((found.start_logits, wanted.start), (found.end_logits, wanted.end)):
        # Only the artifact quantizes activations: errors are a few hundredths of the logits' range.
        assert np.abs(ours[0].numpy() - theirs).max() < 0.1 * np.ptp(theirs)
        assert ours[0].argmax() == theirs.argmax()


def test_missing_artifacts_and_existing_outputs_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--artifact", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert main(["--artifact", str(ARTIFACT), "--output", str(tmp_path)]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
