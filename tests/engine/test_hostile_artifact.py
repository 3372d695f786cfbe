"""Malicious artifacts with valid hashes: rejected in one sentence, without reading outside the folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/models/tiny-fp32"
WEIGHTS = "model.onnx.data"
ITEM = ("Who wrote it?", "The letter was written by Amelia Hart in the spring of 1902.")

Change = Callable[[Any], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit(model: Path, change: Change) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    change(manifest)
    (model / "manifest.json").write_text(json.dumps(manifest))


def seal(model: Path, *names: str) -> None:
    """Set the sizes and hashes of the named files in the manifest."""
    for name in names:
        content = (model / name).read_bytes()
        manifest = json.loads((model / "manifest.json").read_text())
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (model / "manifest.json").write_text(json.dumps(manifest))


def load_error(model: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        QuestionAnswerer(load_artifact(model), threads=1)
    message = caught.value.message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 1000
    return message


# --- the manifest

NAMES = [
    "../secret",
    "/etc/passwd",
    "sub/file",
    "..",
    ".",
    "",
    "a\\b",
    "c:x",
    "nul\0byte",
    "line\nbreak",
    "\ud800",
    "x" * 300,
    ".hidden",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_invalid_file_names(model: Path, name: str) -> None:
    (model.parent / "secret").write_text("secret")
    (model / "sub").mkdir()
    (model / "sub/file").write_text("secret")
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    edit(model, lambda manifest: manifest["files"].update({name: entry}))
    assert "is no name of a file in the folder" in load_error(model)


@pytest.mark.parametrize("name", ["model.onnx", WEIGHTS, "tokenizer.json"])
def test_symlinks(model: Path, name: str) -> None:
    outside = model.parent / "outside"
    (model / name).rename(outside)
    (model / name).symlink_to(outside)
    assert "leads out of its folder" in load_error(model)
    (model / name).unlink()
    (model / name).symlink_to(name)
    assert name in load_error(model)  # a loop
    # The layout of Kubernetes' volumes: chained symlinks within the folder.
    (model / name).unlink()
    (model / "..2026").mkdir()
    outside.rename(model / "..2026" / name)
    (model / "..data").symlink_to("..2026")
    (model / name).symlink_to(f"..data/{name}")
    assert load_artifact(model).model_path == model / "model.onnx"


def test_pipes_and_devices(model: Path) -> None:
    os.mkfifo(model / "pipe")
    edit(model, lambda manifest: manifest["files"].update(pipe={"sha256": "0" * 64, "bytes": 0}))
    assert "no ordinary file" in load_error(model)
    (model / "manifest.json").unlink()
    os.mkfifo(model / "manifest.json")
    assert "holds no manifest.json" in load_error(model)
    (model / "manifest.json").unlink()
    (model / "manifest.json").symlink_to("/dev/zero")
    assert "holds no manifest.json" in load_error(model)


def first_file(**changes: object) -> Change:
    return lambda manifest: manifest["files"]["model.onnx"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        first_file(bytes=-1),
        first_file(bytes=10**30),
        first_file(bytes=True),
        first_file(bytes="47172"),
        first_file(bytes=1e9),
        first_file(sha256="0" * 63),
        first_file(sha256="G" * 64),
        first_file(sha256=None),
        lambda manifest: manifest.update(max_length=10**12),
        lambda manifest: manifest.update(max_length=0),
        lambda manifest: manifest.update(max_length=True),
        lambda manifest: manifest.update(null_threshold=float("nan")),
        lambda manifest: manifest.update(null_threshold=10**400),
        lambda manifest: manifest.update(inputs="input_ids"),
        lambda manifest: manifest.update(inputs=[["input_ids"]]),
        lambda manifest: manifest.update(target=["portable"]),
        lambda manifest: manifest.update(question_first="no"),
        lambda manifest: manifest["special_ids"].update(pad=-1),
        lambda manifest: manifest["special_ids"].update(cls=2**63),
        lambda manifest: manifest.update(files=[1]),
    ],
)
def test_invalid_manifest_values(model: Path, change: Change) -> None:
    edit(model, change)
    assert "is not a valid manifest" in load_error(model)


@pytest.mark.parametrize(
    "content", [b"[" * 500_000, b'{"format": ' + b"9" * 10_000 + b"}", b"\xff", b" " * (2 << 20)]
)
def test_expensive_manifests(model: Path, content: bytes) -> None:
    (model / "manifest.json").write_bytes(content)
    assert "manifest.json" in load_error(model)


def test_a_max_length_without_room_for_a_context(model: Path) -> None:
    edit(model, lambda manifest: manifest.update(max_length=4))
    assert "cannot answer a first question" in load_error(model)


# --- the graph


def change_graph(model: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    graph = onnx.load(str(model / "model.onnx"), load_external_data=False)
    change(graph)
    (model / "model.onnx").write_bytes(graph.SerializeToString())
    seal(model, "model.onnx")


def change_external_data(**values: object) -> Callable[[onnx.ModelProto], object]:
    """Change the location of the first tensor's external data."""

    def change(graph: onnx.ModelProto) -> None:
        tensor = next(t for t in graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
        for entry in tensor.external_data:
            if entry.key in values:
                entry.value = str(values[entry.key])

    return change


@pytest.mark.parametrize("location", ["../{name}", "{outside}", "link", "folder/{name}", "/dev/zero"])
def test_weights_outside_the_folder(model: Path, location: str) -> None:
    outside = model.parent / "outside.data"
    shutil.copy(model / WEIGHTS, outside)
    (model / "link").symlink_to(outside)
    (model / "folder").symlink_to(model.parent)
    change_graph(model, change_external_data(location=location.format(name=outside.name, outside=outside)))
    assert "ONNX Runtime" in load_error(model)


@pytest.mark.parametrize(
    "values",
    [
        {"offset": 10**9},
        {"offset": -4096},
        {"offset": 2**63 - 8},
        {"offset": "x"},
        {"length": 10**9},
        {"length": 4},
    ],
)
def test_data_beyond_the_end_of_the_weights(model: Path, values: dict[str, object]) -> None:
    change_graph(model, change_external_data(**values))
    assert "ONNX Runtime" in load_error(model)


@pytest.mark.parametrize("dims", [[2**40, 2**20], [2**62, 4], [-5, 3], [2_500_000_000]])
def test_tensors_of_invalid_dimensions(model: Path, dims: list[int]) -> None:
    def change(graph: onnx.ModelProto) -> None:
        tensor = next(t for t in graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
        del tensor.dims[:]
        tensor.dims.extend(dims)
        change_external_data(length=0)(graph)

    change_graph(model, change)
    assert "ONNX Runtime" in load_error(model)


@pytest.mark.parametrize("domain", ["", "com.microsoft", "evil.example"])
def test_unknown_operators(model: Path, domain: str) -> None:
    def change(graph: onnx.ModelProto) -> None:
        graph.graph.node[5].op_type, graph.graph.node[5].domain = "Exfiltrate", domain
        if domain:
            graph.opset_import.add(domain=domain, version=1)

    change_graph(model, change)
    assert "ONNX Runtime" in load_error(model)


def insert_before_output(graph: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Insert `node` before the output; its input "before" is the former start_logits."""
    for maker in graph.graph.node:
        for index, name in enumerate(maker.output):
            if name == "start_logits":
                maker.output[index] = "before"
    graph.graph.node.append(node)


def scalar(graph: onnx.ModelProto) -> None:
    insert_before_output(graph, helper.make_node("ReduceSum", ["before"], ["start_logits"], keepdims=0))


def nan_logits(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, dtype=np.float32), "nan"))
    insert_before_output(graph, helper.make_node("Add", ["before", "nan"], ["start_logits"]))


def petabyte(graph: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([10**15], dtype=np.int64), "shape")
    graph.graph.initializer.append(shape)
    graph.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["large"]))
    graph.graph.node.insert(1, helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
    insert_before_output(graph, helper.make_node("Add", ["before", "sum"], ["start_logits"]))


@pytest.mark.parametrize("change", [scalar, nan_logits, petabyte])
def test_graphs_that_load_but_do_not_run(model: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    change_graph(model, change)
    assert "cannot answer a first question" in load_error(model)


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"\x08" * 100_000, b"\xff" * 1000])
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_invalid_file_content(model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    seal(model, name)
    assert name in load_error(model)
