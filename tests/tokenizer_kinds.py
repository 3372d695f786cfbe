"""Small tokenizers of every kind, trained on the project's own texts, without a model or torch."""

from collections.abc import Callable
from functools import cache
from io import BytesIO

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from service.engine.probes import probes

VOCABULARY = 380  # smaller than the tiny model's
TEXTS = list(dict.fromkeys(context for _, context in probes()))
Specials = dict[str, str]

BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# As RoBERTa: the pad id is 1, not 0.
ROBERTA = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def word_piece(specials: Specials, *, lowercase: bool = True) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token=specials["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=_order(specials), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def cased_word_piece(specials: Specials) -> Tokenizer:
    return word_piece(specials, lowercase=False)


def byte_level(specials: Specials) -> Tokenizer:
    """As in GPT-2 and DeBERTa: offsets include the space before a word."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_order(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def unigram(specials: Specials) -> Tokenizer:
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
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def roberta(specials: Specials) -> Tokenizer:
    """As in RoBERTa: the post-processor trims white space from offsets."""
    backend = byte_level(specials)
    frame = [(specials[name], backend.token_to_id(specials[name])) for name in ("sep_token", "cls_token")]
    backend.post_processor = processors.RobertaProcessing(*frame, trim_offsets=True, add_prefix_space=False)
    return backend


def robbert(specials: Specials) -> Tokenizer:
    """As in RobBERT: a space is added before every word, and trimming removes a letter in its place."""
    backend = byte_level(specials)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    )
    frame = [(specials[name], backend.token_to_id(specials[name])) for name in ("sep_token", "cls_token")]
    backend.post_processor = processors.RobertaProcessing(*frame, trim_offsets=True, add_prefix_space=True)
    return backend


def sentence_piece(specials: Specials) -> Tokenizer:
    """As in XLM-RoBERTa and DeBERTa-v3: Unigram after SentencePiece's normalisation table."""
    written = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())  # type: ignore[attr-defined]
    pieces = [(piece.piece, piece.score) for piece in model.pieces if piece.type == 1]
    added = _order(specials)
    vocabulary = [(token, 0.0) for token in added] + pieces
    backend = Tokenizer(models.Unigram(vocabulary, added.index(specials["unk_token"])))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap),
            normalizers.Replace("  ", " "),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(added)
    return backend


# Those without a post-processor get one from `add_template`.
KINDS: dict[str, tuple[Callable[[Specials], Tokenizer], Specials]] = {
    "word_piece": (word_piece, BERT),
    "cased_word_piece": (cased_word_piece, BERT),
    "byte_level": (byte_level, BERT),
    "roberta": (roberta, ROBERTA),
    "robbert": (robbert, ROBERTA),
    "unigram": (unigram, BERT),
    "sentence_piece": (sentence_piece, ROBERTA),
}


def add_template(backend: Tokenizer, specials: Specials, *, type_ids: bool) -> Tokenizer:
    """Set the post-processor: one separator between two texts, or two as in RoBERTa."""
    cls, sep = specials["cls_token"], specials["sep_token"]
    between = [sep, sep] if cls == "<s>" else [sep]
    second = ":1" if type_ids else ""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=" ".join([cls, "$A", *between, f"$B{second}", f"{sep}{second}"]),
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    return backend


def tokenizer_of(kind: str) -> Tokenizer:
    """A copy of the tokenizer `kind` of KINDS, with its post-processor."""
    return Tokenizer.from_str(_trained(kind))


@cache
def _trained(kind: str) -> str:
    """As JSON; cached, since the order of equally frequent pieces varies between trainings."""
    make, specials = KINDS[kind]
    backend = make(specials)
    if not backend.post_processor:
        add_template(backend, specials, type_ids=True)
    return str(backend.to_str())


def _order(specials: Specials) -> list[str]:
    return list(dict.fromkeys(specials.values()))
