"""Owns the way back from an int8 artifact to a Hugging Face folder; knows no training."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizerFast

from export.errors import ExportError
from service.engine.artifact import KERNEL_FILE, TOKENIZER_FILE, load_artifact
from service.errors import QAError

Floats = NDArray[np.float32]


def restore(folder: Path, output: Path) -> None:
    """Write float weights that compute what the artifact's rounded ones do, for `export.finetune --base`.

    Only a BERT that has a second graph (see `kernel_graph`) can be restored, from that graph's one node.
    Raises ExportError for anything else or an `output` that exists, QAError for a broken artifact.
    """
    artifact = load_artifact(folder)
    if not (folder / KERNEL_FILE).is_file() or artifact.manifest["architecture"] != "bert":
        raise ExportError(f"{folder} is no int8 BERT with a {KERNEL_FILE}: only those can be restored.")
    if output.exists():
        raise ExportError(f"{output} exists: choose another --output.")
    node = _Node(onnx.load(str(folder / KERNEL_FILE)))
    state = node.embeddings()
    sizes: dict[str, int] = {
        "vocab_size": len(state["bert.embeddings.word_embeddings.weight"]),
        "hidden_size": state["bert.embeddings.word_embeddings.weight"].shape[1],
        "max_position_embeddings": len(state["bert.embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(state["bert.embeddings.token_type_embeddings.weight"]),
    }
    head, scale, bias = node.next(), node.next(), node.next()
    state |= {"qa_outputs.weight": (head * scale).T, "qa_outputs.bias": bias}
    for number in range(node.attributes["layers"]):
        state |= node.layer(f"bert.encoder.layer.{number}.")
    config = BertConfig(  # type: ignore[no-untyped-call]  # transformers'
        **sizes,
        num_hidden_layers=node.attributes["layers"],
        num_attention_heads=node.attributes["heads"],
        intermediate_size=len(state["bert.encoder.layer.0.intermediate.dense.bias"]),
        hidden_act="relu" if node.attributes["relu"] else "gelu",
        layer_norm_eps=float(f"{node.attributes['epsilon']:.3g}"),
    )
    model = BertForQuestionAnswering(config)  # type: ignore[no-untyped-call]  # transformers'
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    model.save_pretrained(output, safe_serialization=True)
    tokenizer = BertTokenizerFast(  # type: ignore[no-untyped-call]  # transformers'
        tokenizer_file=str(folder / TOKENIZER_FILE), model_max_length=artifact.max_length
    )
    tokenizer.save_pretrained(output)


class _Node:
    """The node of the custom operator: its initializers, read in the order that operator.c lists."""

    def __init__(self, model: onnx.ModelProto) -> None:
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        (node,) = model.graph.node
        self.attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._inputs: Iterator[onnx.TensorProto] = iter([tensors[n] for n in node.input if n in tensors])
        self._smoothed = iter(self.attributes["smoothed"])

    def next(self) -> Floats:
        """The next initializer, as float32."""
        return np.asarray(numpy_helper.to_array(next(self._inputs))).astype(np.float32)

    def embeddings(self) -> dict[str, Floats]:
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        state: dict[str, Floats] = {}
        scales, zero_points = self.attributes["table_scale"], self.attributes["table_zero_point"]
        for name, scale, zero_point in zip(names, scales, zero_points, strict=True):
            table = (self.next() - np.float32(zero_point)) * np.float32(scale)
            state[f"bert.embeddings.{name}.weight"] = table
        return state | self._norm("bert.embeddings.LayerNorm")

    def layer(self, prefix: str) -> dict[str, Floats]:
        """One layer's weights under transformers' names."""
        fused = self._linear("qkv")
        names = ("query", "key", "value")
        state = {
            f"{prefix}attention.self.{name}.{kind}": part
            for kind in ("weight", "bias")
            for name, part in zip(names, np.split(fused[f"qkv.{kind}"], 3), strict=True)
        }
        state |= self._linear(f"{prefix}attention.output.dense")
        state |= self._linear(f"{prefix}intermediate.dense")
        state |= self._linear(f"{prefix}output.dense")
        state |= self._norm(f"{prefix}attention.output.LayerNorm")
        return state | self._norm(f"{prefix}output.LayerNorm")

    def _linear(self, name: str) -> dict[str, Floats]:
        """As torch keeps it, (outputs, inputs); what smoothing took from the weights' input is put back."""
        weights, scale, bias = self.next(), self.next(), self.next()
        plain = weights * scale
        if next(self._smoothed):
            plain = self.next()[:, None] * plain
        return {f"{name}.weight": plain.T, f"{name}.bias": bias}

    def _norm(self, name: str) -> dict[str, Floats]:
        return {f"{name}.weight": self.next(), f"{name}.bias": self.next()}


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
