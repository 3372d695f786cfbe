"""Owns the way back from an int8 artifact to a Hugging Face folder; knows no training."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizerFast

from export.errors import ExportError
from service.engine.artifact import ENCODER_FILE, TOKENIZER_FILE, WEIGHTS_FILE, load_artifact
from service.errors import QAError

Floats = NDArray[np.float32]


def restore(folder: Path, output: Path) -> None:
    """Write float weights that compute what the artifact's rounded ones do, for `export.finetune --base`.

    Only what encoder.json describes, a BERT with one scale per column, can be restored. Raises
    ExportError for anything else or an `output` that exists, QAError for a broken artifact.
    """
    artifact = load_artifact(folder)
    if not (folder / ENCODER_FILE).is_file() or artifact.manifest["architecture"] != "bert":
        raise ExportError(f"{folder} is no int8 BERT for the kernel: only such artifacts can be restored.")
    if output.exists():
        raise ExportError(f"{output} exists: choose another --output.")
    encoder = json.loads((folder / ENCODER_FILE).read_text(encoding="utf-8"))
    weights = _Weights((folder / WEIGHTS_FILE).read_bytes())
    layers, up = encoder["layers"], encoder["layers"][0]["up"]
    config = BertConfig(  # type: ignore[no-untyped-call]  # transformers'
        vocab_size=encoder["tables"]["words"]["rows"][1],
        hidden_size=encoder["hidden"],
        num_hidden_layers=len(layers),
        num_attention_heads=encoder["heads"],
        intermediate_size=up["weights"][2],
        hidden_act=encoder["activation"],
        max_position_embeddings=encoder["tables"]["positions"]["rows"][1],
        type_vocab_size=encoder["tables"]["types"]["rows"][1],
        layer_norm_eps=float(f"{encoder['epsilon']:.3g}"),
    )
    state = _embeddings(encoder, weights)
    for number, layer in enumerate(layers):
        state |= _layer(f"bert.encoder.layer.{number}.", layer, weights)
    state |= weights.linear("qa_outputs", encoder["head"])
    model = BertForQuestionAnswering(config)  # type: ignore[no-untyped-call]  # transformers'
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    model.save_pretrained(output, safe_serialization=True)
    tokenizer = BertTokenizerFast(  # type: ignore[no-untyped-call]  # transformers'
        tokenizer_file=str(folder / TOKENIZER_FILE), model_max_length=artifact.max_length
    )
    tokenizer.save_pretrained(output)


class _Weights:
    """Tensors of model.onnx.data by their place, [offset, *shape]; numbers in JSON are themselves."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, place: list[Any], kind: type[np.generic] = np.float32) -> Floats:
        """A float32 copy."""
        offset, *shape = place
        flat = np.frombuffer(self._data, kind, int(np.prod(shape)), offset)
        return flat.reshape(shape).astype(np.float32)

    def matrix(self, entry: dict[str, Any]) -> Floats:
        """(inputs, outputs); what smoothing took from the weights' input is put back."""
        scale, smooth = entry["scale"], entry.get("smooth")
        plain = self.read(entry["weights"], np.int8) * self._vector(scale, entry["weights"][2])
        return plain if smooth is None else self.read(smooth)[:, None] * plain

    def linear(self, name: str, entry: dict[str, Any]) -> dict[str, Floats]:
        """As torch keeps it: (outputs, inputs)."""
        bias = self._vector(entry["bias"], entry["weights"][2])
        return {f"{name}.weight": self.matrix(entry).T, f"{name}.bias": bias}

    def norm(self, name: str, entry: dict[str, Any]) -> dict[str, Floats]:
        """Gain and shift of a LayerNorm."""
        return {f"{name}.weight": self.read(entry["gain"]), f"{name}.bias": self.read(entry["shift"])}

    def _vector(self, value: list[Any], size: int) -> Floats:
        """A tensor's place, or the numbers themselves: the head has too few to be stored apart."""
        if isinstance(value[0], int) and value[1:] == [size]:
            return self.read(value)
        return np.array(value, dtype=np.float32)


def _embeddings(encoder: dict[str, Any], weights: _Weights) -> dict[str, Floats]:
    names = {
        "words": "word_embeddings",
        "positions": "position_embeddings",
        "types": "token_type_embeddings",
    }
    state = weights.norm("bert.embeddings.LayerNorm", encoder["after_embedding"])
    for key, name in names.items():
        table = encoder["tables"][key]
        rounded = weights.read(table["rows"], np.uint8)
        state[f"bert.embeddings.{name}.weight"] = (rounded - np.float32(table["zero"])) * np.float32(
            table["scale"]
        )
    return state


def _layer(prefix: str, layer: dict[str, Any], weights: _Weights) -> dict[str, Floats]:
    fused = weights.linear("qkv", layer["qkv"])
    names = ("query", "key", "value")
    state = {
        f"{prefix}attention.self.{name}.{kind}": part
        for kind in ("weight", "bias")
        for name, part in zip(names, np.split(fused[f"qkv.{kind}"], 3), strict=True)
    }
    state |= weights.linear(f"{prefix}attention.output.dense", layer["out"])
    state |= weights.norm(f"{prefix}attention.output.LayerNorm", layer["after_attention"])
    state |= weights.linear(f"{prefix}intermediate.dense", layer["up"])
    state |= weights.linear(f"{prefix}output.dense", layer["down"])
    return state | weights.norm(f"{prefix}output.LayerNorm", layer["after_down"])


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 not restorable."""
    parser = argparse.ArgumentParser(
        prog="python -m export.restore",
        description="Turn an int8 artifact back into a Hugging Face folder with float weights, to fine-tune "
        "a model of which only the artifact is at hand, such as models/default.",
    )
    parser.add_argument("--artifact", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        restore(options.artifact, options.output)
    except (QAError, ExportError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
