"""Answerers with the tiny model and any kind of tokenizer, for tests of offsets; their answers are random."""

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tokenizers import Tokenizer

from service.engine.answering import QuestionAnswerer
from service.engine.artifact import load_artifact
from tests.tokenizer_kinds import KINDS, tokenizer_of

TINY = Path(__file__).parent / "models/tiny-int8"


@cache
def answerer_of(kind: str) -> QuestionAnswerer:
    """An answerer with the tokenizer `kind` of KINDS."""
    return answerer_with(tokenizer_of(kind), KINDS[kind][1]["cls_token"])


def answerer_with(backend: Tokenizer, cls_token: str) -> QuestionAnswerer:
    folder = Path(mkdtemp())
    try:
        shutil.copytree(TINY, folder, dirs_exist_ok=True)
        backend.save(str(folder / "tokenizer.json"))
        data = (folder / "tokenizer.json").read_bytes()
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["special_ids"]["cls"] = backend.token_to_id(cls_token)
        manifest["files"]["tokenizer.json"] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return QuestionAnswerer(load_artifact(folder))
    finally:
        shutil.rmtree(folder)
