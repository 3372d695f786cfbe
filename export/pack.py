"""Owns the split of a graph into model.onnx and its weights; knows not how either was made."""

from pathlib import Path

import onnx
from onnx import numpy_helper

from service.engine.artifact import MODEL_FILE, WEIGHTS_FILE

# Bytes from which a tensor goes to the weights' file: all but scalars, for the kernel reads them there.
_LEAST = 128


def pack(graph: Path, folder: Path) -> None:
    """Write `graph` into `folder`, its weights in a file of their own, and remove `graph`.

    ONNX Runtime maps that file into memory: the embeddings, half of a small model, are read where
    they are used, and shared by all sessions and processes instead of copied into each.
    """
    model = onnx.load(str(graph))
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):  # only raw ones move
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save_model(
        model,
        str(folder / MODEL_FILE),
        save_as_external_data=True,
        location=WEIGHTS_FILE,
        size_threshold=_LEAST,
    )
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (folder / name).chmod(0o644)  # a service of another user reads it
    graph.unlink()


def size(folder: Path) -> int:
    """Bytes of the model, weights included."""
    return sum((folder / name).stat().st_size for name in (MODEL_FILE, WEIGHTS_FILE))
