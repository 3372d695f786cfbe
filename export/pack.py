"""Owns the files of a finished graph in its artifact folder; knows no stage."""

from pathlib import Path

from export import storage
from service.engine.artifact import MODEL_FILE, WEIGHTS_FILE


def pack(finished: Path, folder: Path) -> None:
    """Move the graph `finished` into `folder`.

    ONNX Runtime memory-maps the weights file: embeddings (half of a small model) are paged in on demand and
    shared by all sessions and processes.
    """
    storage.save(storage.load(finished), folder / MODEL_FILE)
    storage.remove(finished)
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (folder / name).chmod(0o644)  # readable by the user of the service


def size(folder: Path) -> int:
    """Size of the model in bytes, weights included."""
    return storage.size(folder / MODEL_FILE)
