"""Owns a graph's two files: nodes in one, weights beside it; knows not what either means.

A protobuf message holds 2 GB at most, and xlm-roberta-large has 2.2 GB of weights. So every graph, of any
size, has its weights in a file of their own from the conversion on: the stages have one way, and small models
test it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data

# Bytes from which a tensor goes to the weights' file: all but scalars and shapes. Those stay with the nodes,
# where shape inference reads them; the kernel reads all others in the file.
_LEAST = 64


def weights_file(graph: Path) -> Path:
    """The file beside `graph` with its weights, named as ONNX Runtime's tools name it."""
    return graph.with_name(f"{graph.name}.data")


def load(graph: Path, *, weights: bool = True) -> onnx.ModelProto:
    """The graph in memory; without `weights`, its tensors only name their places in the weights' file."""
    return onnx.load(str(graph), load_external_data=weights)


def values(tensor: onnx.TensorProto, graph: Path) -> npt.NDArray[Any]:
    """A tensor of `graph` as an array, read from the weights' file where it is there."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)  # else onnx leaves the bytes it read in the tensor
    return np.asarray(numpy_helper.to_array(copy, base_dir=str(graph.parent)))


def save(model: onnx.ModelProto, graph: Path) -> None:
    """Write a graph whose weights are in memory; what was there before is replaced.

    `model` has lost its weights afterwards.
    """
    weights_file(graph).unlink(missing_ok=True)  # else onnx appends to it
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):  # only raw ones move
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        if len(tensor.raw_data) >= _LEAST:
            # save_model(save_as_external_data=True) would refuse where the working directory, of all
            # places, holds a file of that name.
            set_external_data(tensor, weights_file(graph).name)
    onnx.save_model(model, str(graph))


def save_nodes(model: onnx.ModelProto, graph: Path) -> None:
    """Write the file of the nodes alone, of a graph loaded without weights: those stay in the file beside."""
    onnx.save_model(model, str(graph))


def remove(graph: Path) -> None:
    """Delete both files."""
    graph.unlink()
    weights_file(graph).unlink(missing_ok=True)


def size(graph: Path) -> int:
    """Bytes of both files."""
    return sum(file.stat().st_size for file in (graph, weights_file(graph)) if file.exists())
