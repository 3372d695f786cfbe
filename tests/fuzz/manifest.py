"""Fuzzing target: arbitrary bytes as manifest.json. The folder loads or is rejected in one sentence."""

import json
import shutil
import tempfile
from pathlib import Path

from service.engine.artifact import load_artifact
from service.errors import ArtifactError

TINY = Path(__file__).resolve().parents[1] / "models/tiny-int8"
_FOLDER = Path(shutil.copytree(TINY, Path(tempfile.mkdtemp()) / "model"))

SEEDS = [(TINY / "manifest.json").read_bytes(), (TINY.parent / "tiny-fp32/manifest.json").read_bytes()]


def check(data: bytes) -> None:
    """Raises unless `data` gives a valid artifact or a valid ArtifactError."""
    (_FOLDER / "manifest.json").write_bytes(data)
    message = ""
    try:
        artifact = load_artifact(_FOLDER, verify=False)
    except ArtifactError as error:
        message = error.message
    if message:
        assert message.endswith(".")
        assert len(message) < 1000
        assert message.isprintable()  # no line breaks or escape sequences in a log
        return
    assert 0 < artifact.max_length <= 1 << 17
    assert 0 <= artifact.pad_id <= 1 << 31
    assert all(type(name) is str for name in (*artifact.inputs, artifact.start_output, artifact.end_output))
    for name in json.loads(data)["files"]:
        assert (_FOLDER / name).resolve().parent == _FOLDER.resolve()
