"""Makes the tiny real model of the tests and its artifacts: python tests/models/make_tiny.py

A BERT of two layers with random weights and a WordPiece tokenizer of its own: it knows nothing, but
everything about it is real, and its logits are far enough apart for answers to be unambiguous.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizerFast

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Write tests/models/tiny (Hugging Face), tiny-fp32 and tiny-int8 (artifacts)."""
    from export.__main__ import main as export

    folder = HERE / "tiny"
    if not folder.exists():  # the training of a tokenizer is not repeatable, and golden answers rest on it
        build(folder)
    for name, *flags in (
        ("tiny-fp32", "--precision", "fp32"),
        ("tiny-int8", "--recipe", "fused-int8-per-channel"),
    ):
        assert export(["--model", str(folder), "--output", str(HERE / name), *flags]) == 0


def build(folder: Path) -> None:
    """Write the Hugging Face folder."""
    texts = [
        entry["context"] for entry in json.loads((ROOT / "service/engine/probes.json").read_text("utf-8"))
    ]
    tokenizer(texts, 384).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=384,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.5,
    )
    BertForQuestionAnswering(config).save_pretrained(folder)


def tokenizer(texts: list[str], size: int) -> BertTokenizerFast:
    """Lower-casing WordPiece as BERT's, learned from `texts`."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=specials, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return BertTokenizerFast(tokenizer_object=backend, model_max_length=512)


if __name__ == "__main__":
    main()
