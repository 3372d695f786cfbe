"""An artifact whose files change while it is loaded: replaced by rename, or truncated in place."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from service.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/models/tiny-fp32"
WEIGHTS = "model.onnx.data"
ITEM = ("Who wrote it?", "The letter was written by Amelia Hart in the spring of 1902.")


@pytest.mark.parametrize("source", [TINY, ROOT / "models/default"], ids=["onnxruntime", "default"])
def test_a_loaded_model_survives_replacement_by_rename(source: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(source, tmp_path / "model"))
    answerer = QuestionAnswerer(load_artifact(model), threads=1)
    before = answerer.answer([ITEM])
    model.rename(tmp_path / "old")  # as the export replaces an artifact
    shutil.copytree(ROOT / "tests/models/tiny-int8", model)
    shutil.rmtree(tmp_path / "old")
    assert answerer.answer([ITEM]) == before
    # The same for a single file.
    (tmp_path / "new").write_bytes(b"")
    (tmp_path / "new").rename(model / WEIGHTS)
    assert answerer.answer([ITEM]) == before


def test_truncation_in_place_ends_the_process_and_prevents_a_restart(tmp_path: Path) -> None:
    # As documented in SECURITY.md: the weights are memory-mapped, so the process cannot survive this change.
    model = Path(shutil.copytree(ROOT / "models/default", tmp_path / "model"))
    code = (
        "import sys; from pathlib import Path\n"
        "from service.engine.answering import QuestionAnswerer\n"
        "from service.engine.artifact import load_artifact\n"
        "folder = Path(sys.argv[1]); answerer = QuestionAnswerer(load_artifact(folder), threads=1)\n"
        f"(folder / {WEIGHTS!r}).open('r+b').truncate(0)\n"
        f"answerer.answer([{ITEM!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGBUS, done.stderr
    with pytest.raises(ArtifactError, match="truncated"):
        load_artifact(model)
