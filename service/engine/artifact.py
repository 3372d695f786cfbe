"""Owns the model folder on disk, reading and verification; knows no inference."""

import hashlib
import json
import math
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from service.engine import cpu
from service.errors import ArtifactError

FORMAT = 2
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"  # ONNX external data, in the same folder
TOKENIZER_FILE = "tokenizer.json"
# An equivalent graph over the same weights for CPUs with AVX-512 VNNI, for supported architectures.
KERNEL_FILE = "model.avx512_vnni.onnx"
MANIFEST_FILE = "manifest.json"

# Sanity limits: far above any manifest of `export`; larger ones could exhaust memory or time.
_MANIFEST_BYTES = 1 << 20
_LONGEST = 1 << 17  # tokens per window: arrays of this size are allocated
_LARGEST_ID = 1 << 31
# A portable name of a file in the folder itself: no separator, no drive, no leading dot.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model folder; the fields are those of manifest.json, format 2.

    `inputs` are the graph's input names, `start_output`/`end_output` the names of its logits, `max_length`
    the maximum tokens of a window (special tokens included), `null_threshold` the log-odds above which there
    is no answer (Devlin et al., SQuAD 2.0), None if it was not calibrated.
    """

    path: Path
    precision: str
    target: str
    inputs: tuple[str, ...]
    start_output: str
    end_output: str
    question_first: bool
    cls_id: int | None
    pad_id: int
    max_length: int
    null_threshold: float | None
    manifest: dict[str, Any]

    @property
    def model_path(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER_FILE


def load_artifact(path: Path, *, verify: bool = True) -> Artifact:
    """Read a model folder; `verify` checks the hash of every listed file (about 20 ms for 25 MB).

    The manifest is untrusted input: types, ranges and names are validated. Each file must lie in the folder
    after resolving symbolic links, with the size and hash in the manifest.

    Raises ArtifactError, in one sentence, for a missing folder or file, an altered file, an unknown format
    version, and an int8 artifact for instructions that this CPU lacks.
    """
    manifest = _read_manifest(path)
    try:
        artifact = _parse(path, manifest)
        files = _files(manifest["files"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtifactError(
            f"{path / MANIFEST_FILE} is not a valid manifest ({type(error).__name__}: {str(error)[:200]}): "
            "export the model again."
        ) from error
    for name in (MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if name not in files:
            raise ArtifactError(f"{path / MANIFEST_FILE} lists no {name}: export the model again.")
    for name, (sha256, size) in files.items():
        _check_file(path, name, sha256, size, verify=verify)
    if artifact.precision == "int8" and not cpu.supports(artifact.target):
        raise ArtifactError(
            f"The int8 model in {path} is made for {artifact.target}, which this CPU "
            f"({cpu.cpu_model()}) lacks, so its answers would be wrong: "
            "export it again with --target portable."
        )
    return artifact


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST_FILE
    try:
        if not path.is_dir():
            raise ArtifactError(f"There is no model folder at {path}: name one made by 'python -m export'.")
        if not file.is_file():  # nor a pipe or a device, whose reading might not end
            raise ArtifactError(
                f"{path} holds no {MANIFEST_FILE}, so it is not an exported model: "
                "make one with 'python -m export'."
            )
        with file.open("rb") as stream:
            content = stream.read(_MANIFEST_BYTES + 1)
        if len(content) > _MANIFEST_BYTES:
            raise ArtifactError(f"{file} has more than {_MANIFEST_BYTES} bytes, so it is no manifest.")
        manifest = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read as JSON ({type(error).__name__}).") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ArtifactError(
            f"{file} has format {found!r:.20} and this version reads format {FORMAT}: "
            "export the model again with this version."
        )
    return dict(manifest)


def _parse(path: Path, manifest: dict[str, Any]) -> Artifact:
    ids, outputs = _of(dict, manifest["special_ids"]), _of(dict, manifest["outputs"])
    threshold = manifest["null_threshold"]
    if manifest["precision"] not in ("int8", "fp32"):
        raise ValueError(f"precision {manifest['precision']!r}")
    if manifest["target"] not in cpu.TARGETS:
        raise ValueError(f"target {manifest['target']!r}")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"null_threshold {threshold!r}")
    return Artifact(
        path=path,
        precision=manifest["precision"],
        target=manifest["target"],
        inputs=tuple(_of(str, name) for name in _of(list, manifest["inputs"])),
        start_output=_of(str, outputs["start"]),
        end_output=_of(str, outputs["end"]),
        question_first=_of(bool, manifest["question_first"]),
        cls_id=None if ids["cls"] is None else _whole(ids["cls"], 0, _LARGEST_ID),
        # Padding is masked, so any valid id will do if the tokenizer has none.
        pad_id=0 if ids["pad"] is None else _whole(ids["pad"], 0, _LARGEST_ID),
        max_length=_whole(manifest["max_length"], 1, _LONGEST),
        null_threshold=None if threshold is None else float(threshold),
        manifest=manifest,
    )


def _files(listed: object) -> dict[str, tuple[str, int]]:
    """SHA-256 and size in bytes of each file, by name."""
    files: dict[str, tuple[str, int]] = {}
    for name, entry in _of(dict, listed).items():
        if not _PLAIN_NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is no name of a file in the folder")
        sha256, size = _of(str, entry["sha256"]), _whole(entry["bytes"], 0, 1 << 50)
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"sha256 of {name}")
        files[name] = (sha256, size)
    return files


def _of(kind: type[T], value: object) -> T:
    """`value` if its type is exactly `kind` (a bool is not an int); raises TypeError."""
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value


def _whole(value: object, least: int, most: int) -> int:
    """`value` if it is an int in [least, most]; raises TypeError and ValueError."""
    number = _of(int, value)
    if not least <= number <= most:
        raise ValueError(f"{str(number)[:40]} is not between {least} and {most}")
    return number


def _check_file(folder: Path, name: str, sha256: str, size: int, *, verify: bool) -> None:
    file = folder / name
    try:
        real = file.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            raise ArtifactError(
                f"{file} is a link that leads out of its folder, to {real}: put the file itself there."
            )
        found = real.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ArtifactError(f"{file} is no ordinary file: fetch or export the model again.")
        if found.st_size != size:
            raise ArtifactError(
                f"{file} has {found.st_size} bytes where its manifest says {size}: it is truncated "
                "or altered, fetch or export the model again."
            )
        if verify:
            with real.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != sha256:
                raise ArtifactError(
                    f"{file} does not have the sha256 its manifest says: it is altered, "
                    "fetch or export the model again."
                )
    except (OSError, RuntimeError) as error:  # RuntimeError: a symlink loop, before Python 3.13
        raise ArtifactError(
            f"{file} cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from error
