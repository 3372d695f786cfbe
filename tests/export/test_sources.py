"""Source folders: saved by transformers 5, sharded, with tied weights, in half precision."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from export.__main__ import main
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.engine.probes import probes
from tests.export.families import FAMILIES, build
from tests.export.test_refusals import change_config, export_error

_BY_NAME = {family.name: family for family in FAMILIES}
QUESTIONS = probes()[:3]


def exported(source: Path, output: Path) -> QuestionAnswerer:
    assert main(["--model", str(source), "--output", str(output), "--precision", "fp32"]) == 0
    return QuestionAnswerer(load_artifact(output))


def as_transformers_5(folder: Path, **tokenizer_settings: Any) -> None:
    """Convert a folder saved by transformers 4 to what 5.24 saves for the same model."""
    config = json.loads((folder / "config.json").read_text())
    dtype = config.pop("torch_dtype", None) or config.pop("dtype")
    config |= {"dtype": dtype, "tie_word_embeddings": True, "transformers_version": "5.24.0"}
    config |= {"bos_token_id": 0, "eos_token_id": 2, "is_decoder": False, "add_cross_attention": False}
    (folder / "config.json").write_text(json.dumps(config))
    old = json.loads((folder / "tokenizer_config.json").read_text())
    kept = {"model_max_length", "model_input_names", "do_lower_case", "add_prefix_space"}
    settings = {name: value for name, value in old.items() if name in kept or name.endswith("_token")}
    generic = old["tokenizer_class"] == "PreTrainedTokenizerFast"
    name = "TokenizersBackend" if generic else old["tokenizer_class"].removesuffix("Fast")
    settings |= {"backend": "tokenizers", "tokenizer_class": name} | tokenizer_settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            file.unlink()


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "deberta-v3"])
def test_saved_by_transformers_5(name: str, tmp_path: Path) -> None:
    source = build(_BY_NAME[name], tmp_path / "source")
    before = exported(source, tmp_path / "before")
    as_transformers_5(source)
    after = exported(source, tmp_path / "after")
    assert after.answer(QUESTIONS) == before.answer(QUESTIONS)
    manifests = [found.artifact.manifest for found in (before, after)]
    for key in ("special_ids", "max_length", "question_first"):
        assert manifests[0][key] == manifests[1][key]


def test_extra_special_tokens_of_transformers_5(tmp_path: Path) -> None:
    source = build(_BY_NAME["xlm-roberta"], tmp_path / "source")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    word = "<table>"
    assert tokenizer.token_to_id(word) is None
    tokenizer.add_special_tokens([word])
    tokenizer.save(str(source / "tokenizer.json"))
    as_transformers_5(source, extra_special_tokens=[word])
    exported(source, tmp_path / "out")
    found = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert found.encode(f"a {word} b").ids == tokenizer.encode(f"a {word} b").ids
    assert found.token_to_id(word) in found.encode(f"a {word} b").ids


def test_rope_parameters_of_transformers_5(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny, tmp_path / "source"))
    change_config(source, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    exported(source, tmp_path / "out")
    change_config(source, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    message = export_error(capsys, "--model", source, "--output", tmp_path / "other", "--precision", "fp32")
    assert "rope_parameters" in message


def shards(tiny: Path, folder: Path) -> Path:
    shutil.copytree(tiny, folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    return folder


def test_weights_in_shards(tiny: Path, tmp_path: Path) -> None:
    whole, parts = exported(tiny, tmp_path / "whole"), exported(shards(tiny, tmp_path / "p"), tmp_path / "o")
    assert whole.answer(QUESTIONS) == parts.answer(QUESTIONS)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: sorted(folder.glob("model-*"))[1].unlink(), "lacks model-00002-of-"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "which file holds"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("["), "JSON"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"qa_outputs.bias": "../tiny/model.safetensors"}}'
            ),
            "outside of the folder",
        ),
    ],
)
def test_missing_and_invalid_shards(
    spoil: Callable[[Path], object],
    words: str,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = shards(tiny, tmp_path / "source")
    spoil(source)
    message = export_error(capsys, "--model", source, "--output", tmp_path / "out", "--precision", "fp32")
    assert words in message


def test_tied_weights(tmp_path: Path) -> None:
    # BART's encoder, decoder and head share their embeddings, which safetensors stores once.
    family = _BY_NAME["roberta"]
    source = build(family, tmp_path / "source")
    sizes: dict[str, Any] = {"vocab_size": 400, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 512, "init_std": 0.4}
    torch.manual_seed(11)
    config = transformers.BartConfig(**sizes, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    transformers.BartForQuestionAnswering(config).save_pretrained(source)
    names = load_file(source / "model.safetensors").keys()
    assert [name for name in names if "embed_tokens" in name or "shared" in name] == ["model.shared.weight"]
    # The export compares the converted graph with torch and fails if they differ.
    answers = exported(source, tmp_path / "out").answer(QUESTIONS)
    assert all(np.isfinite(answer.score) for (answer,) in answers)


@pytest.mark.parametrize(("dtype", "key"), [("bfloat16", "dtype"), ("float16", "torch_dtype")])
def test_half_precision_weights_are_converted(dtype: str, key: str, tiny: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny, tmp_path / "source"))
    half = {name: t.to(getattr(torch, dtype)) for name, t in load_file(source / "model.safetensors").items()}
    save_file(half, source / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config = {name: value for name, value in config.items() if "dtype" not in name} | {key: dtype}
    (source / "config.json").write_text(json.dumps(config))
    ours = exported(source, tmp_path / "ours")
    # The reference: the weights rounded to half precision, saved in fp32.
    save_file({name: t.float() for name, t in half.items()}, source / "model.safetensors", {"format": "pt"})
    change_config(source, **{key: "float32"})
    assert ours.answer(QUESTIONS) == exported(source, tmp_path / "whole").answer(QUESTIONS)
