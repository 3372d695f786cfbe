"""Fine-tuning runs of a tiny model: from SQuAD files to the saved folder, interruptions and restarts."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForQuestionAnswering

from export.finetune import FinetuneError, training
from export.finetune.__main__ import main
from export.finetune.base import find_base, load_tokenizer
from export.finetune.batches import collate
from export.finetune.checkpoint import Checkpoint
from export.finetune.examples import build_examples, build_features
from export.finetune.training import _schedule, span_loss
from export.squad import read_squad
from tests.export.finetune.rooms import command


def mean_loss(folder: Path, squad: Path) -> float:
    """The training loss over the whole file."""
    tokenizer = load_tokenizer(find_base(str(folder)))
    features = list(build_features(build_examples(read_squad(squad), 0, ""), tokenizer, 128, 32))
    batch = collate(features, None, tokenizer.pad_token_id)
    model = BertForQuestionAnswering.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = model(batch.ids, batch.mask, batch.types)
    return span_loss(torch.stack((output.start_logits, output.end_logits), -1), batch, 0, 1).item()


class TestTraining:
    def test_the_loss_falls_and_the_output_is_complete(self, bert: Path, squad: Path, tmp_path: Path) -> None:
        output = tmp_path / "out"
        more = ("--epochs", "25", "--learning-rate", "3e-3", "--no-answer-fraction", "0.1")
        assert main(command(bert, squad, output, *more)) == 0
        before, after = mean_loss(bert, squad), mean_loss(output, squad)
        assert before > 2.5
        # Two answers with different start tokens share the target, so the minimum is (ln 2 + 0) / 2.
        assert np.log(2) / 2 - 1e-3 < after < 1.5
        record = json.loads((output / "training.json").read_text())
        assert record["counts"]["questions"] == 40
        assert record["counts"]["examples_without_answer"] == 4
        assert record["steps"] == 25 * 6
        assert len(record["arguments"]["train"][0]["sha256"]) == 64
        assert record["arguments"]["base"]["id"] == bert.name
        assert str(squad.parent) not in (output / "training.json").read_text()
        assert not (tmp_path / "out.checkpoint").exists()
        assert list(tmp_path.iterdir()) == [output]
        tokens = json.loads((output / "tokenizer.json").read_text())
        assert tokens["truncation"] is None
        assert tokens["padding"] is None

    def test_at_a_constant_rate_steps_do_not_depend_on_their_total(
        self, bert: Path, squad: Path, tmp_path: Path
    ) -> None:
        constant = ("--schedule", "constant", "--warmup-ratio", "0")
        for name, more in (("epoch", ("--epochs", "1")), ("steps", ("--max-steps", "5"))):
            assert main(command(bert, squad, tmp_path / name, *constant, *more)) == 0
        records = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("epoch", "steps")]
        assert [record["steps"] for record in records] == [5, 5]
        weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("epoch", "steps")]
        assert weights[0] == weights[1]

    def test_word_embeddings_are_trained_on_demand_only(
        self, bert: Path, squad: Path, tmp_path: Path
    ) -> None:
        trained, frozen = tmp_path / "trained", tmp_path / "frozen"
        assert main(command(bert, squad, trained)) == 0
        flags = command(bert, squad, frozen)
        flags.remove("--train-embeddings")
        assert main(flags) == 0
        name = "bert.embeddings.word_embeddings.weight"
        start = load_file(bert / "model.safetensors")[name]
        assert torch.equal(load_file(frozen / "model.safetensors")[name], start)
        assert not torch.equal(load_file(trained / "model.safetensors")[name], start)

    def test_averaging_with_the_base(
        self, bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plain, mean = tmp_path / "plain", tmp_path / "mean"
        assert main(command(bert, squad, plain)) == 0
        assert main(command(bert, squad, mean, "--average-with-base")) == 0
        base, end, middle = (load_file(f / "model.safetensors") for f in (bert, plain, mean))
        assert all(torch.equal(middle[name], (base[name] + end[name]) / 2) for name in middle)
        assert not all(torch.equal(end[name], base[name]) for name in end)
        headless = tmp_path / "headless"
        shutil.copytree(bert, headless)
        config = json.loads((headless / "config.json").read_text()) | {"architectures": ["BertModel"]}
        (headless / "config.json").write_text(json.dumps(config))
        assert main(command(headless, squad, tmp_path / "no", "--average-with-base")) == 2
        assert "--average-with-base" in capsys.readouterr().err.splitlines()[-1]

    def test_another_activation(
        self, bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plain, other = tmp_path / "plain", tmp_path / "other"
        assert main(command(bert, squad, plain)) == 0
        assert main(command(bert, squad, other, "--activation", "relu")) == 0
        names = [json.loads((f / "config.json").read_text())["hidden_act"] for f in (bert, plain, other)]
        assert names == ["gelu", "gelu", "relu"]
        first, second = (load_file(f / "model.safetensors") for f in (plain, other))
        assert not all(torch.equal(first[name], second[name]) for name in first)  # training used it
        for flags in (("--activation", "step"), ("--activation", "relu", "--average-with-base")):
            assert main(command(bert, squad, tmp_path / "no", *flags)) == 2
            assert "activation" in capsys.readouterr().err.splitlines()[-1]

    def test_a_killed_and_resumed_run_gives_identical_weights(
        self, bert: Path, squad: Path, tmp_path: Path
    ) -> None:
        more = ("--epochs", "60", "--learning-rate", "1e-3", "--dropout", "0.1")  # 300 steps
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        arguments = command(bert, squad, killed, *more)
        process = subprocess.Popen(
            [sys.executable, "-m", "export.finetune", *arguments, "--checkpoint-minutes", "0"],
            cwd=Path(__file__).parents[3],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        state = tmp_path / "killed.checkpoint" / "state.pt"
        while not (state.exists() and torch.load(state, weights_only=True)["step"] >= 7):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert 7 <= torch.load(state, weights_only=True)["step"] < 300
        assert not killed.exists()
        assert main(arguments) == 0
        assert main(command(bert, squad, whole, *more)) == 0
        assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert (killed / "training.json").read_text() == (whole / "training.json").read_text()

    def test_a_resumed_run_starts_from_its_checkpoint(
        self, bert: Path, squad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Interrupted in the last step, the second run has one step to do."""
        arguments = command(bert, squad, tmp_path / "out", "--checkpoint-minutes", "0")
        steps = []
        step = training._step

        def interrupted(*given: Any) -> float:
            steps.append(1)
            if len(steps) == 10:
                raise KeyboardInterrupt
            return step(*given)

        monkeypatch.setattr(training, "_step", interrupted)
        assert main(arguments) == 130
        steps.clear()
        assert main(arguments) == 0
        assert len(steps) == 1

    def test_other_arguments_need_a_restart(
        self, bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "out"
        assert main(command(bert, squad, output)) == 0
        weights = (output / "model.safetensors").read_bytes()
        capsys.readouterr()
        assert main(command(bert, squad, output)) == 0
        assert "already trained by this command" in capsys.readouterr().err
        assert main(command(bert, squad, output, "--seed", "4")) == 2
        assert "--restart" in capsys.readouterr().err.splitlines()[-1]
        assert (output / "model.safetensors").read_bytes() == weights
        assert main(command(bert, squad, output, "--seed", "4", "--restart")) == 0
        assert (output / "model.safetensors").read_bytes() != weights
        assert list(tmp_path.iterdir()) == [output]

    def test_other_folders_are_not_overwritten(
        self, bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine").write_text("precious")
        assert main(command(bert, squad, tmp_path, "--restart")) == 2
        assert "choose another --output" in capsys.readouterr().err
        assert (tmp_path / "mine").read_text() == "precious"


class TestCheckpoint:
    def test_changed_arguments_are_named_in_the_error(self, tmp_path: Path) -> None:
        with Checkpoint(tmp_path / "out") as first:
            first.begin({"seed": 1, "epochs": 3}, restart=False)
            first.save({"step": 5})
        with Checkpoint(tmp_path / "out") as second:
            with pytest.raises(FinetuneError, match=r"seed was 1, is 2\): repeat those, or pass --restart"):
                second.begin({"seed": 2, "epochs": 3}, restart=False)
            assert second.load() == {"step": 5}
            second.begin({"seed": 2, "epochs": 3}, restart=True)
            assert second.load() is None

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        second = Checkpoint(tmp_path / "out")
        with Checkpoint(tmp_path / "out"), pytest.raises(FinetuneError, match="Another run is writing"):
            second.__enter__()
        with Checkpoint(tmp_path / "out") as later:
            later.remove()


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(kind: str, shares: list[float]) -> None:
    found = [_schedule(step, 10, 0.2, kind) for step in (0, 1, 2, 6, 8)]
    assert found == pytest.approx(shares)
