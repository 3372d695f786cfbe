"""Builds a tiny random question-answering model of each family, with a real tokenizer of its kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from tests.tokenizer_kinds import (
    BERT,
    ROBERTA,
    VOCABULARY,
    add_template,
    byte_level,
    robbert,
    unigram,
    word_piece,
)

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
    """A model type: the prefix of its class names, its kind of tokenizer and its special tokens."""

    name: str
    stem: str
    tokenizer: Callable[[dict[str, str]], Tokenizer]
    specials: dict[str, str]
    sizes: dict[str, Any] = field(default_factory=dict)
    tokenizer_class: str | None = None
    type_ids: bool = True


_OFFSET = {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "max_relative_positions": 64,
    "type_vocab_size": 0,
}

FAMILIES = [
    Family("bert", "Bert", word_piece, BERT, tokenizer_class="BertTokenizerFast"),
    Family(
        "distilbert",
        "DistilBert",
        word_piece,
        BERT,
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "DistilBertTokenizerFast",
        type_ids=False,
    ),
    Family("electra", "Electra", word_piece, BERT, {"embedding_size": 16}, "ElectraTokenizerFast"),
    Family(
        "mobilebert",
        "MobileBert",
        word_piece,
        BERT,
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
        ROBERTA,
        {"max_position_embeddings": 514, "pad_token_id": 1},
        "MPNetTokenizerFast",
        type_ids=False,
    ),
    Family("roberta", "Roberta", byte_level, ROBERTA, _OFFSET, "RobertaTokenizerFast", type_ids=False),
    Family("robbert", "Roberta", robbert, ROBERTA, _OFFSET, type_ids=False),
    Family("deberta", "Deberta", byte_level, BERT, _DEBERTA),
    Family("xlm-roberta", "XLMRoberta", unigram, ROBERTA, _OFFSET, type_ids=False),
    Family("camembert", "Camembert", unigram, ROBERTA, _OFFSET, type_ids=False),
    Family(
        "albert",
        "Albert",
        unigram,
        {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        {"embedding_size": 16},
    ),
    Family("deberta-v2", "DebertaV2", unigram, BERT, _DEBERTA),
    Family(  # as DeBERTa-v3 is configured
        "deberta-v3",
        "DebertaV2",
        unigram,
        BERT,
        _DEBERTA | {"share_att_key": True, "position_buckets": 32, "norm_rel_ebd": "layer_norm"},
    ),
]


def build(family: Family, folder: Path, **tokenizer_settings: Any) -> Path:
    """Save the model and the tokenizer of `family` into `folder`."""
    backend = family.tokenizer(family.specials)
    if not backend.post_processor:
        add_template(backend, family.specials, type_ids=family.type_ids)
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
