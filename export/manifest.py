"""Owns manifest.json, format 2, and the publication of the folder; knows no stage."""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import service
from export.errors import ExportError
from export.source import Source
from export.tokenizer import TokenizerFacts
from service.engine.artifact import (
    FORMAT,
    KERNEL_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)

_TOOLS = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers")


def write(
    folder: Path,
    source: Source,
    tokenizer: TokenizerFacts,
    *,
    precision: str,
    target: str,
    recipe: str,
    opset: int,
    inputs: tuple[str, ...],
    null_threshold: float | None,
    quality: Mapping[str, Any],
) -> None:
    """Write the manifest of the model and tokenizer in `folder`, which completes the artifact."""
    manifest = {
        "format": FORMAT,
        "source": {"id": source.id, "commit": source.commit},
        "architecture": source.architecture,
        "precision": precision,
        "target": target,
        "recipe": recipe,
        "opset": opset,
        "inputs": list(inputs),
        "outputs": {"start": "start_logits", "end": "end_logits"},
        **asdict(tokenizer),
        "null_threshold": null_threshold,
        "tools": {"qa-onnx": service.__version__}
        | {name: importlib.metadata.version(name).partition("+")[0] for name in _TOOLS},
        "files": {
            name: {
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                "bytes": (folder / name).stat().st_size,
            }
            for name in (MODEL_FILE, WEIGHTS_FILE, KERNEL_FILE, TOKENIZER_FILE)
            if (folder / name).is_file()  # most architectures have no second graph
        },
        "quality": dict(quality),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def check_output(output: Path) -> None:
    """Raises ExportError if `output` exists and is not an artifact (artifacts are replaced)."""
    if not output.exists():
        return
    if not output.is_dir() or (any(output.iterdir()) and not (output / MANIFEST_FILE).is_file()):
        raise ExportError(
            f"{output} exists and is not an exported model, so it is left alone: name another --output."
        )


def publish(folder: Path, output: Path) -> None:
    """Rename the finished `folder`, on the same file system, to `output`; replaces an older artifact."""
    if not output.exists():
        folder.replace(output)
        return
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    output.replace(old)
    folder.replace(output)
    shutil.rmtree(old, ignore_errors=True)
