"""Owns the model folder on disk: reads and verifies it; knows nothing of how it is run."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.engine import cpu
from service.errors import ArtifactError

FORMAT = 2
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"  # beside it, by ONNX's rule for external data
TOKENIZER_FILE = "tokenizer.json"
# The same function over the same weights for CPUs with AVX-512 VNNI; most architectures have none.
KERNEL_FILE = "model.avx512_vnni.onnx"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model folder; the fields are those of manifest.json, format 2.

    `inputs` are the graph's input names, `start_output`/`end_output` its logits by name,
    `max_length` the most tokens one window may have (specials included), `null_threshold` the
    log-odds null must exceed (Devlin et al., SQuAD 2.0), None where it was never measured.
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
    """Read a model folder; with `verify`, hash every file it lists (about 20 ms for 25 MB).

    Raises ArtifactError, in one sentence, for a missing folder or file, an altered file, an
    unknown format version, and an int8 artifact made for instructions this CPU lacks.
    """
    manifest = _read_manifest(path)
    try:
        artifact = _parse(path, manifest)
        files = {str(k): (str(v["sha256"]), int(v["bytes"])) for k, v in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path / MANIFEST_FILE} is not a valid manifest ({type(error).__name__}: {error}): "
            "export the model again."
        ) from error
    for name in (MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if name not in files:
            raise ArtifactError(f"{path / MANIFEST_FILE} lists no {name}: export the model again.")
    for name, (sha256, size) in files.items():
        _check_file(path / name, sha256, size, verify=verify)
    if artifact.precision == "int8" and not cpu.supports(artifact.target):
        raise ArtifactError(
            f"The int8 model in {path} is made for {artifact.target}, which this CPU "
            f"({cpu.cpu_model()}) lacks, so its answers would be wrong: "
            "export it again with --target portable."
        )
    return artifact


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST_FILE
    if not path.is_dir():
        raise ArtifactError(f"There is no model folder at {path}: name one made by 'python -m export'.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} holds no {MANIFEST_FILE}, so it is not an exported model: "
            "make one with 'python -m export'."
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be read as JSON ({type(error).__name__}).") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ArtifactError(
            f"{file} has format {found!r} and this version reads format {FORMAT}: "
            "export the model again with this version."
        )
    return dict(manifest)


def _parse(path: Path, manifest: dict[str, Any]) -> Artifact:
    ids = manifest["special_ids"]
    threshold = manifest["null_threshold"]
    if manifest["precision"] not in ("int8", "fp32"):
        raise ValueError(f"precision {manifest['precision']!r}")
    if manifest["target"] not in cpu.TARGETS:
        raise ValueError(f"target {manifest['target']!r}")
    return Artifact(
        path=path,
        precision=str(manifest["precision"]),
        target=str(manifest["target"]),
        inputs=tuple(str(name) for name in manifest["inputs"]),
        start_output=str(manifest["outputs"]["start"]),
        end_output=str(manifest["outputs"]["end"]),
        question_first=bool(manifest["question_first"]),
        cls_id=None if ids["cls"] is None else int(ids["cls"]),
        # Padded places are masked out, so any valid id will do where the tokenizer has none.
        pad_id=0 if ids["pad"] is None else int(ids["pad"]),
        max_length=int(manifest["max_length"]),
        null_threshold=None if threshold is None else float(threshold),
        manifest=manifest,
    )


def _check_file(file: Path, sha256: str, size: int, *, verify: bool) -> None:
    try:
        found_size = file.stat().st_size
        if found_size != size:
            raise ArtifactError(
                f"{file} has {found_size} bytes where its manifest says {size}: it is truncated "
                "or altered, fetch or export the model again."
            )
        if verify:
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != sha256:
                raise ArtifactError(
                    f"{file} does not have the sha256 its manifest says: it is altered, "
                    "fetch or export the model again."
                )
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror}).") from error
