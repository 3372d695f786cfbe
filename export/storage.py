"""Owns the two files of a graph, nodes and external weights; knows no content of either.

A protobuf message has at most 2 GB, and xlm-roberta-large has 2.2 GB of weights. So all graphs, independently
of their size, use external data from the conversion on: a single code path, tested with small models.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data

# Minimum size in bytes of external tensors: all but scalars and shapes, which shape inference needs in the
# graph file. The custom operator reads the others from the weights file.
_LEAST = 64


def weights_file(graph: Path) -> Path:
    """The weights file of `graph`, with the name that ONNX Runtime's tools use."""
    return graph.with_name(f"{graph.name}.data")


def load(graph: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Load the graph; without `weights`, its tensors only refer to the weights file."""
    return onnx.load(str(graph), load_external_data=weights)


def values(tensor: onnx.TensorProto, graph: Path) -> npt.NDArray[Any]:
    """A tensor of `graph` as an array, read from the weights file if it is external."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)  # else onnx stores the data it read in the tensor
    return np.asarray(numpy_helper.to_array(copy, base_dir=str(graph.parent)))


def save(model: onnx.ModelProto, graph: Path) -> None:
    """Write a graph with weights in memory, replacing existing files; removes the weights from `model`."""
    weights_file(graph).unlink(missing_ok=True)  # else onnx appends to it
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):  # only raw data can be external
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        if len(tensor.raw_data) >= _LEAST:
            # save_model(save_as_external_data=True) fails if the working directory has a file of that name.
            set_external_data(tensor, weights_file(graph).name)
    onnx.save_model(model, str(graph))


def save_nodes(model: onnx.ModelProto, graph: Path) -> None:
    """Write the graph file only, for a graph loaded without weights."""
    onnx.save_model(model, str(graph))


def remove(graph: Path) -> None:
    """Delete both files."""
    graph.unlink()
    weights_file(graph).unlink(missing_ok=True)


def size(graph: Path) -> int:
    """Size of both files in bytes."""
    return sum(file.stat().st_size for file in (graph, weights_file(graph)) if file.exists())
