"""Owns the conversion of an int8 artifact back to a Hugging Face folder; knows no training."""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

from export.errors import ExportError
from service.engine.artifact import MODEL_FILE, TOKENIZER_FILE, Artifact, load_artifact
from service.errors import QAError

Floats = NDArray[np.float32]

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_MASKS = ("[MASK]", "<mask>")
_ACTIVATIONS = {"Gelu": "gelu", "Relu": "relu"}


def restore(folder: Path, output: Path) -> None:
    """Write dequantized float weights, for `export.finetune --base`.

    Fused int8 BERT graphs only. Raises ExportError for anything else or an `output` that exists,
    QAError for a broken artifact.
    """
    artifact = load_artifact(folder)
    if output.exists():
        raise ExportError(f"{output} exists: choose another --output.")
    graph = _Graph(onnx.load(str(folder / MODEL_FILE)).graph)
    if artifact.manifest["architecture"] != "bert" or not graph.attentions:
        raise ExportError(f"{folder} holds no fused int8 graph of a BERT: only such can be restored.")
    state = graph.state()
    words, positions, types = (state[f"bert.embeddings.{name}.weight"] for name in _TABLES)
    config = BertConfig(  # type: ignore[no-untyped-call]  # transformers'
        vocab_size=len(words),
        pad_token_id=artifact.manifest["special_ids"]["pad"],
        hidden_size=words.shape[1],
        num_hidden_layers=len(graph.attentions),
        num_attention_heads=int(_attribute(graph.attentions[0], "num_heads")),
        intermediate_size=len(state["bert.encoder.layer.0.intermediate.dense.weight"]),
        hidden_act=graph.activation,
        max_position_embeddings=len(positions),
        type_vocab_size=len(types),
        layer_norm_eps=float(f"{graph.epsilon:.3g}"),  # as float32 it is 9.99999996e-13
    )
    model = BertForQuestionAnswering(config)  # type: ignore[no-untyped-call]  # transformers'
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    model.save_pretrained(output, safe_serialization=True)
    _tokenizer(artifact).save_pretrained(output)


def _tokenizer(artifact: Artifact) -> PreTrainedTokenizerFast:
    """The tokenizer with the roles of its special tokens."""
    backend = Tokenizer.from_file(str(artifact.path / TOKENIZER_FILE))
    roles = {
        f"{role}_token": backend.id_to_token(number)
        for role, number in artifact.manifest["special_ids"].items()
        if number is not None
    }
    mask = next((token for token in _MASKS if backend.token_to_id(token) is not None), None)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers'
        tokenizer_object=backend,
        model_max_length=artifact.max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        mask_token=mask,
        **roles,
    )


class _Graph:
    """The weights of the graph; biases and LayerNorms have their torch names."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._products = [node for node in graph.node if node.op_type == "MatMulInteger"]
        self.attentions = [node for node in graph.node if node.op_type == "QAttention"]
        activations = [node.op_type for node in graph.node if node.op_type in _ACTIVATIONS]
        self.activation = _ACTIVATIONS[activations[0]] if activations else "gelu"
        norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
        self.epsilon = _attribute(norms[0], "epsilon") if norms else 1e-12

    def state(self) -> dict[str, Floats]:
        """All weights, with the names and shapes of transformers."""
        state = {
            name: value.astype(np.float32)
            for name, value in self._values.items()
            if name.startswith(("bert.", "qa_outputs.")) and name.endswith((".bias", "LayerNorm.weight"))
        }
        for name in _TABLES:
            state[f"bert.embeddings.{name}.weight"] = self._plain(f"bert.embeddings.{name}.weight")
        products = iter(self._products)
        for number, attention in enumerate(self.attentions):
            prefix = f"bert.encoder.layer.{number}"
            weights, bias = self._matrix(attention).T, self._values[attention.input[2]]
            for part, name in enumerate(("query", "key", "value")):
                state[f"{prefix}.attention.self.{name}.weight"] = np.split(weights, 3)[part]
                state[f"{prefix}.attention.self.{name}.bias"] = np.split(bias, 3)[part]
            for name in ("attention.output", "intermediate", "output"):
                state[f"{prefix}.{name}.dense.weight"] = self._matrix(next(products)).T
        state["qa_outputs.weight"] = self._matrix(next(products)).T
        return state

    def _matrix(self, node: onnx.NodeProto) -> Floats:
        """(inputs, outputs) float weights, with smoothing undone."""
        plain = self._plain(node.input[1].removesuffix("_quantized"))
        rounding = self._makers[node.input[0]]
        before = self._makers.get(rounding.input[0])
        if before is not None and before.op_type == "Mul":
            for name in before.input:
                if name in self._values and self._values[name].shape == (len(plain),):
                    return self._values[name][:, None] * plain
        return plain

    def _plain(self, name: str) -> Floats:
        """Dequantize: (q - zero point) x scale, per tensor or per column."""
        rounded, zero = (
            self._values[f"{name}_{part}"].astype(np.float32) for part in ("quantized", "zero_point")
        )
        result: Floats = (rounded - zero) * self._values[f"{name}_scale"]
        return result


def _attribute(node: onnx.NodeProto, name: str) -> float:
    """The value of a numeric attribute."""
    for attribute in node.attribute:
        if attribute.name == name:
            return float(onnx.helper.get_attribute_value(attribute))
    raise ExportError(f"A {node.op_type} of the graph has no {name}.")


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
