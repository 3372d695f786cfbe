"""Owns the place of a finished graph in its artifact's folder; knows not how it was made."""

from pathlib import Path

from export import storage
from service.engine.artifact import MODEL_FILE, WEIGHTS_FILE


def pack(finished: Path, folder: Path) -> None:
    """Move the graph `finished` into `folder`.

    ONNX Runtime maps its weights into memory: the embeddings, half of a small model, are read where
    they are used, and shared by all sessions and processes instead of copied into each.
    """
    storage.save(storage.load(finished), folder / MODEL_FILE)
    storage.remove(finished)
    for name in (MODEL_FILE, WEIGHTS_FILE):
        (folder / name).chmod(0o644)  # a service of another user reads it


def size(folder: Path) -> int:
    """Bytes of the model, weights included."""
    return storage.size(folder / MODEL_FILE)
