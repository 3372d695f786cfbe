"""Averaging the weights of fine-tuned models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForQuestionAnswering, BertModel

from export.finetune.average import main


def variant(base: Path, folder: Path, seed: int) -> Path:
    """The base with random noise added to its weights."""
    model = BertForQuestionAnswering.from_pretrained(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn(weights.shape, generator=generator))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("weights", [(), (0.6, 0.1, 0.3), (6, 1, 3)])
def test_the_mean_of_three(bert: Path, tmp_path: Path, weights: tuple[float, ...]) -> None:
    folders = [variant(bert, tmp_path / str(seed), seed) for seed in range(3)]
    output = tmp_path / "mean"
    flags = ["--weights", *map(str, weights)] if weights else []
    assert main([*map(str, folders), *flags, "--output", str(output)]) == 0
    parts = [load_file(folder / "model.safetensors") for folder in folders]
    mean = load_file(output / "model.safetensors")
    assert mean.keys() == parts[0].keys()
    shares = [weight / sum(weights) for weight in weights] or [1 / 3] * 3
    for name, tensor in mean.items():
        expected = torch.stack([share * part[name] for share, part in zip(shares, parts, strict=True)]).sum(0)
        assert torch.allclose(tensor, expected, atol=1e-5)
    assert AutoTokenizer.from_pretrained(output)("box").input_ids
    record = json.loads((output / "training.json").read_text())
    assert [entry["id"] for entry in record["arguments"]["mean_of"]] == ["0", "1", "2"]
    assert record["arguments"]["weights"] == list(weights or (1, 1, 1))


def test_incompatible_models_are_rejected(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headless = tmp_path / "headless"
    BertModel.from_pretrained(bert).save_pretrained(headless)
    smaller = tmp_path / "smaller"
    shutil.copytree(bert, smaller)
    model = BertForQuestionAnswering.from_pretrained(bert)
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    model.config.num_hidden_layers = 1
    model.save_pretrained(smaller)
    for models, reason in (
        ([bert, headless], "headless has no question-answering head"),
        ([bert, smaller], "have other shapes"),
        ([bert, bert, "--weights", "1"], "2 in all"),
        ([bert, bert, "--weights", "1", "-1"], "2 in all"),
        ([bert, bert, "--weights", "1", "nan"], "2 in all"),
    ):
        assert main([*map(str, models), "--output", str(tmp_path / "out")]) == 2
        assert reason in capsys.readouterr().err
    assert main([str(bert), str(bert), "--output", str(smaller)]) == 2
    assert not (tmp_path / "out").exists()
