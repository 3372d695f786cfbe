"""One-sentence errors of loading a model folder, and the number of available CPUs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.engine import cpu
from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.errors import ArtifactError

TINY = Path(__file__).resolve().parents[1] / "models/tiny-int8"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    change(manifest)
    (model / "manifest.json").write_text(json.dumps(manifest))


def load_error(model: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        load_artifact(model)
    message = caught.value.message
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_valid_artifact_loads(model: Path) -> None:
    artifact = load_artifact(model)
    assert artifact.precision == "int8"
    assert artifact.cls_id == 2
    assert artifact.max_length == 512


def test_missing_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in load_error(tmp_path / "none")


def test_paths_that_are_not_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "dangling", "loop", "pipe"):
        assert f"no model folder at {tmp_path / name}" in load_error(tmp_path / name)
    assert "cannot be read (File name too long)" in load_error(tmp_path / ("x" * 300))


def test_a_folder_without_read_permission(model: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    for path in (model / "model.onnx", model / "manifest.json", model, model.parent):
        mode = path.stat().st_mode
        path.chmod(0)
        try:
            assert "Permission denied" in load_error(model)
        finally:
            path.chmod(mode)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"])
def test_missing_file(model: Path, name: str) -> None:
    (model / name).unlink()
    assert name in load_error(model)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_altered_byte(model: Path, name: str) -> None:
    data = bytearray((model / name).read_bytes())
    data[len(data) // 2] ^= 1
    (model / name).write_bytes(data)
    message = load_error(model)
    assert name in message
    assert "altered" in message


def test_truncated(model: Path) -> None:
    data = (model / "model.onnx").read_bytes()
    (model / "model.onnx").write_bytes(data[:-1])
    assert "truncated" in load_error(model)


@pytest.mark.parametrize("number", [1, 3])
def test_other_format(model: Path, number: int) -> None:
    edit(model, lambda manifest: manifest.update(format=number))
    assert f"has format {number} and this version reads format 2: export the model again" in load_error(model)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null"])
def test_broken_manifest(model: Path, text: str) -> None:
    (model / "manifest.json").write_text(text)
    assert "manifest.json" in load_error(model)


@pytest.mark.parametrize("key", ["files", "inputs", "outputs", "special_ids", "max_length", "target"])
def test_missing_key(model: Path, key: str) -> None:
    edit(model, lambda manifest: manifest.pop(key))
    assert key in load_error(model)


@pytest.mark.parametrize(("key", "value"), [("precision", "int4"), ("target", "z80")])
def test_unknown_value(model: Path, key: str, value: str) -> None:
    edit(model, lambda manifest: manifest.update({key: value}))
    assert value in load_error(model)


def test_int8_for_another_cpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    load_artifact(model)  # portable runs anywhere
    edit(model, lambda manifest: manifest.update(target="avx512_vnni"))
    assert "--target portable" in load_error(model)
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx2", "avx_vnni"}))
    load_artifact(model)
    edit(model, lambda manifest: manifest.update(target="arm64"))
    assert "arm64" in load_error(model)


def test_outputs_are_read_by_name(model: Path) -> None:
    context = "The letter was written by Amelia Hart in the spring of 1902."
    ((right,),) = QuestionAnswerer(load_artifact(model)).answer([("Who?", context)])
    edit(model, lambda m: m.update(outputs={"start": "end_logits", "end": "start_logits"}))
    ((swapped,),) = QuestionAnswerer(load_artifact(model)).answer([("Who?", context)])
    assert right != swapped


def test_a_graph_without_the_outputs_is_rejected(model: Path) -> None:
    edit(model, lambda m: m.update(outputs={"start": "begin", "end": "end_logits"}))
    with pytest.raises(ArtifactError, match="begin"):
        QuestionAnswerer(load_artifact(model))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n1:name=systemd:/\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_the_cgroup_quota_limits_the_cpu_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert cpu.available_cpus(tree(tmp_path, files)) == expected


def test_the_affinity_mask_limits_the_cpu_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    assert cpu.available_cpus(tmp_path) == 1
