"""Layer-wise distillation from a model of the same shape."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from export.finetune.__main__ import main
from export.finetune.base import find_base, load_model
from export.finetune.mimic import layer_loss
from tests.export.finetune.rooms import command


def distance(first: Path, second: Path) -> float:
    """The layer loss between two saved models, on random tokens."""
    torch.manual_seed(8)
    ids = torch.randint(5, 40, (4, 24))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        outputs = [
            load_model(find_base(str(folder))).eval()(
                input_ids=ids, attention_mask=mask, output_hidden_states=True
            )
            for folder in (first, second)
        ]
    return float(layer_loss(outputs[0], outputs[1], mask))


def test_distillation_with_another_activation(bert: Path, squad: Path, tmp_path: Path) -> None:
    teacher, alone, led = (tmp_path / name for name in ("teacher", "alone", "led"))
    assert main(command(bert, squad, teacher)) == 0
    flags = ("--activation", "relu")
    assert main(command(teacher, squad, alone, *flags)) == 0
    assert main(command(teacher, squad, led, *flags, "--mimic", str(teacher))) == 0
    assert distance(led, teacher) < distance(alone, teacher)
    record = json.loads((led / "training.json").read_text())["arguments"]
    assert record["mimic"]["weights_sha256"] == find_base(str(teacher)).weights_sha256


def test_padding_is_not_compared(bert: Path) -> None:
    model = load_model(find_base(str(bert))).eval()
    ids = torch.randint(5, 40, (2, 12))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        padded = model(
            input_ids=torch.nn.functional.pad(ids, (0, 6), value=7),
            attention_mask=torch.nn.functional.pad(mask, (0, 6)),
            output_hidden_states=True,
        )
    assert float(layer_loss(output, output, mask)) == 0
    other = [layer + 1 for layer in output.hidden_states]
    longer = [torch.nn.functional.pad(layer, (0, 0, 0, 6), value=1e3) for layer in other]
    plain = layer_loss(output, type(output)(hidden_states=tuple(other)), mask)
    wide = layer_loss(
        padded, type(output)(hidden_states=tuple(longer)), torch.nn.functional.pad(mask, (0, 6))
    )
    assert float(wide) == pytest.approx(float(plain), rel=1e-4)
    assert float(plain) > 0


def test_incompatible_models_and_flags(
    bert: Path, squad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(bert, other)
    config = json.loads((other / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (other / "config.json").write_text(json.dumps(config))
    for flags in (("--mimic", str(other)), ("--mimic", str(bert), "--teacher", str(bert))):
        assert main(command(bert, squad, tmp_path / "no", *flags)) == 2
        assert "mimic" in capsys.readouterr().err.splitlines()[-1]
