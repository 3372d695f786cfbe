"""Builds a tiny random question-answering model of each family, with a real tokenizer of its kind."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [entry["context"] for entry in json.loads((ROOT / "service/engine/probes.json").read_text("utf-8"))]
VOCABULARY = 400
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,
}


@dataclass(frozen=True)
class Family:
    """A model type: the stem of its classes, its kind of tokenizer and its special tokens."""

    name: str
    stem: str
    tokenizer: Callable[[dict[str, str]], Tokenizer]
    specials: dict[str, str]
    sizes: dict[str, Any] = field(default_factory=dict)
    tokenizer_class: str | None = None
    type_ids: bool = True


def _trained(backend: Tokenizer, trainer: Any) -> Tokenizer:
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def _order(specials: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(specials.values()))


def word_piece(specials: dict[str, str]) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token=specials["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=_order(specials), show_progress=False
    )
    return _trained(backend, trainer)


def byte_level(specials: dict[str, str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_order(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _trained(backend, trainer)


def unigram(specials: dict[str, str]) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_order(specials),
        unk_token=specials["unk_token"],
        show_progress=False,
    )
    return _trained(backend, trainer)


_BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# As RoBERTa: the pad id is 1, not 0.
_ROBERTA = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_OFFSET = {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "max_relative_positions": 64,
    "type_vocab_size": 0,
}

FAMILIES = [
    Family("bert", "Bert", word_piece, _BERT, tokenizer_class="BertTokenizerFast"),
    Family(
        "distilbert",
        "DistilBert",
        word_piece,
        _BERT,
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "DistilBertTokenizerFast",
        type_ids=False,
    ),
    Family("electra", "Electra", word_piece, _BERT, {"embedding_size": 16}, "ElectraTokenizerFast"),
    Family(
        "mobilebert",
        "MobileBert",
        word_piece,
        _BERT,
        {
            "embedding_size": 16,
            "intra_bottleneck_size": 16,
            "num_feedforward_networks": 2,
            "initializer_range": 0.1,
        },
        "MobileBertTokenizerFast",
    ),
    Family(
        "mpnet",
        "MPNet",
        word_piece,
        _ROBERTA,
        {"max_position_embeddings": 514, "pad_token_id": 1},
        "MPNetTokenizerFast",
        type_ids=False,
    ),
    Family("roberta", "Roberta", byte_level, _ROBERTA, _OFFSET, "RobertaTokenizerFast", type_ids=False),
    Family("deberta", "Deberta", byte_level, _BERT, _DEBERTA),
    Family("xlm-roberta", "XLMRoberta", unigram, _ROBERTA, _OFFSET, type_ids=False),
    Family("camembert", "Camembert", unigram, _ROBERTA, _OFFSET, type_ids=False),
    Family(
        "albert",
        "Albert",
        unigram,
        {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        {"embedding_size": 16},
    ),
    Family("deberta-v2", "DebertaV2", unigram, _BERT, _DEBERTA),
    Family(  # as DeBERTa-v3 is configured
        "deberta-v3",
        "DebertaV2",
        unigram,
        _BERT,
        _DEBERTA | {"share_att_key": True, "position_buckets": 32, "norm_rel_ebd": "layer_norm"},
    ),
]


def build(family: Family, folder: Path, **tokenizer_settings: Any) -> Path:
    """Save the model and the tokenizer of `family` into `folder`."""
    backend = family.tokenizer(family.specials)
    cls, sep = family.specials["cls_token"], family.specials["sep_token"]
    between = [sep, sep] if cls == "<s>" else [sep]
    second = ":1" if family.type_ids else ""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=" ".join([cls, "$A", *between, f"$B{second}", f"{sep}{second}"]),
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    kind = getattr(transformers, family.tokenizer_class or "PreTrainedTokenizerFast")
    settings: dict[str, Any] = {"model_max_length": 512} | tokenizer_settings
    if not family.type_ids:
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    tokenizer = kind(tokenizer_object=backend, **family.specials, **settings)
    tokenizer.backend_tokenizer.post_processor = backend.post_processor
    tokenizer.save_pretrained(folder)
    torch.manual_seed(11)
    sizes = _SIZES | {"pad_token_id": backend.token_to_id(family.specials["pad_token"])} | family.sizes
    config = getattr(transformers, family.stem + "Config")(**sizes)
    model = getattr(transformers, family.stem + "ForQuestionAnswering")(config)
    model.save_pretrained(folder)
    return folder
