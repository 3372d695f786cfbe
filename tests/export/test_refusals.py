"""Errors of the export command: exit status 2, one sentence, and no output."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from export.__main__ import main
from service.engine import cpu
from tests.export.conftest import ROOT


def change_config(folder: Path, name: str = "config.json", /, **changes: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_tokenizer(folder: Path, **changes: Any) -> None:
    change_config(folder, "tokenizer.json", **changes)


def three_outputs(folder: Path, *, declare: bool = True) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in ("qa_outputs.weight", "qa_outputs.bias"):
        weights[name] = weights[name][[0, 1, 1]].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if declare:
        change_config(folder, id2label={"0": "start", "1": "end", "2": "none"})


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)


def without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("qa_outputs")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    "another head": (
        lambda folder: change_config(folder, architectures=["BertForMaskedLM"]),
        "BertForMaskedLM",
    ),
    "no head named": (lambda folder: change_config(folder, architectures=None), "fine-tune"),
    "head not in the weights": (without_head, "qa_outputs"),
    "no exporter": (
        lambda folder: change_config(folder, architectures=["GPT2ForQuestionAnswering"], model_type="gpt2"),
        "gpt2",
    ),
    "unknown type": (
        lambda folder: change_config(folder, architectures=["XForQuestionAnswering"], model_type="x"),
        "x model",
    ),
    "custom code": (
        lambda folder: change_config(folder, auto_map={"AutoModel": "code.Model"}),
        "--trust-remote-code",
    ),
    "pickled weights only": (pickled_only, "safetensors"),
    "weights cut off": (cut_weights, "source"),
    "no tokenizer": (no_tokenizer, "tokenizer"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
    "no type": (lambda folder: change_config(folder, model_type=None), "model_type"),
    "adapter weights only": (
        lambda folder: (folder / "model.safetensors").rename(folder / "adapter_model.safetensors"),
        "no safetensors weights",
    ),
    "three outputs": (three_outputs, "3 outputs"),
    "three outputs, by number": (lambda folder: change_config(folder, num_labels=3), "3 outputs"),
    "three outputs in the weights alone": (
        lambda folder: three_outputs(folder, declare=False),
        "size mismatch",
    ),
    "quantized weights": (
        lambda folder: change_config(folder, quantization_config={"quant_method": "bitsandbytes"}),
        "quantized already",
    ),
    "unknown pre-tokenizer": (
        lambda folder: change_tokenizer(folder, pre_tokenizer={"type": "Quantum"}),
        "PreTokenizer",
    ),
    "unknown tokenizer model": (
        lambda folder: change_tokenizer(folder, model={"type": "Quantum", "vocab": {}}),
        "Model",
    ),
    "unknown tokenizer version": (lambda folder: change_tokenizer(folder, version="2.0"), "'2.0'"),
    "unknown tokenizer class": (
        lambda folder: change_config(folder, "tokenizer_config.json", tokenizer_class="QuantumTokenizer"),
        "QuantumTokenizer",
    ),
}


def export_error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("export: ")
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_models(name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    spoil, words = BROKEN[name]
    spoil(source)
    message = export_error(capsys, "--model", source, "--output", tmp_path / "out", "--precision", "fp32")
    assert words in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--recipe", "magic"), "fused-int8-per-channel"),
        (("--precision", "fp32", "--recipe", "fused-int8-per-channel"), "fp32"),
        (("--max-seq-length", "513"), "512"),
        (("--max-seq-length", "0"), "--max-seq-length"),
        (("--revision", "main"), "--revision"),
        (("--evaluate", "/no/such.json"), "/no/such.json"),
    ],
)
def test_invalid_flags(
    flags: tuple[str, ...], words: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = export_error(capsys, "--model", tiny, "--output", tmp_path / "out", *flags)
    assert words in message
    assert list(tmp_path.iterdir()) == []


def test_a_target_this_cpu_lacks(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = next(name for name in cpu.TARGETS if not cpu.supports(name))
    message = export_error(capsys, "--model", tiny, "--output", tmp_path / "out", "--target", target)
    assert target in message


def test_no_candidate_within_the_error_limit(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.choose.MAX_ERROR", 0.0)
        message = export_error(capsys, "--model", tiny, "--output", tmp_path / "out")
    assert "--precision fp32" in message
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_not_replaced(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    message = export_error(capsys, "--model", tiny, "--output", tmp_path)
    assert str(tmp_path) in message
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    file = tmp_path / "thesis.txt"
    export_error(capsys, "--model", tiny, "--output", file)
    assert file.read_text() == "years of work"


def test_a_good_artifact_survives_a_failed_export(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    assert main(["--model", str(tiny), "--output", str(good), "--precision", "fp32"]) == 0
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    cut_weights(broken)
    export_error(capsys, "--model", broken, "--output", good)
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "good"]
    assert main(["--model", str(tiny), "--output", str(good), "--recipe", "plain-int8-per-channel"]) == 0
    assert json.loads((good / "manifest.json").read_text())["precision"] == "int8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "good"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(stop: signal.Signals, tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "export", "--model", tiny, "--output", output],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(stop)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []
