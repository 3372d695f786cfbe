"""Reduction of a unigram vocabulary to what texts use."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from export.vocabulary import main, split_punctuation
from tests.export.conftest import TINY

CONTEXT = "who lives here lives here"
WORDS = ("▁who", "▁lives", "▁here", "▁nobody", "▁wohnt", "▁hier", "▁live", "ed")
PIECES = ("<s>", "<pad>", "</s>", "<unk>", *WORDS, "s", "▁é", "漢", "?", "<mask>")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An encoder of random weights with a unigram tokenizer, as a multilingual one's."""
    backend = Tokenizer(
        models.Unigram([(piece, -float(i)) for i, piece in enumerate(PIECES)], unk_id=3, byte_fallback=False)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    folder = tmp_path / "base"
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A SQuAD file."""
    answers = [{"text": "here", "answer_start": 10}]
    qas = [{"id": "1", "question": "who lived?", "answers": answers}]
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}))
    return file


def test_frequent_pieces_and_letters_stay_with_their_embeddings(
    base: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "small"
    command = ["--base", str(base), "--texts", str(texts), "--size", "9", "--output", str(output)]
    assert main(command) == 0
    assert "10 of 17 pieces" in capsys.readouterr().err
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(output)
    kept = [after.convert_ids_to_tokens(i) for i in range(len(after))]
    assert kept[:7] == ["<s>", "<pad>", "</s>", "<unk>", "s", "▁é", "?"]
    assert set(kept[7:9]) < {"▁lives", "▁here", "▁who"}  # two times each
    assert kept[9:] == ["<mask>"]
    old, new = (AutoModel.from_pretrained(folder).get_input_embeddings().weight for folder in (base, output))
    for number, piece in enumerate(kept):
        assert torch.equal(new[number], old[before.convert_tokens_to_ids(piece)])
    pair = after("lives?", "here")["input_ids"]
    assert pair == [after.convert_tokens_to_ids(t) for t in before.tokenize("lives?", "here", True)]
    assert (after.mask_token_id, after.pad_token_id) == (9, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It opened in 1931.", ["It", "opened", "in", "1931", "."]),
        ('(1931) "No," he said;', ["(", "1931", ")", '"', "No", ",", '"', "he", "said", ";"]),
        ("10,000 at 2.5%, 20%.", ["10,000", "at", "2.5%", ",", "20%", "."]),
        ("U.S. well-known AT&T's", ["U.S", ".", "well-known", "AT&T's"]),
        (" one\ntwo\t three ", ["one", "two", "three"]),
        ("... ", [".", ".", "."]),
        ("  ", []),
        ("", []),
    ],
)
def test_words_end_before_punctuation(text: str, words: list[str]) -> None:
    letters = [(piece, -1.0) for piece in ("<unk>", "▁", *map(chr, range(33, 127)))]
    tokenizer = Tokenizer(models.Unigram(letters, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    before = tokenizer.encode(" ".join(text.split()), add_special_tokens=False).tokens
    split_punctuation(tokenizer)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert encoding.tokens == before  # only the words change
    spans: dict[int, list[tuple[int, int]]] = {}
    for word, span in zip(encoding.word_ids, encoding.offsets, strict=True):
        spans.setdefault(word, []).append(span)
    assert [text[own[0][0] : own[-1][1]] for own in spans.values()] == words


def test_other_tokenizers_and_existing_outputs_are_rejected(
    base: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--base", str(TINY), "--texts", str(texts), "--output", str(tmp_path / "out")]) == 2
    assert "no unigram model" in capsys.readouterr().err
    assert main(["--base", str(base), "--texts", str(texts), "--output", str(tmp_path)]) == 2
    assert main(["--base", str(base), "--texts", str(base), "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_base_without_weights_is_one_sentence(
    base: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "model.safetensors").unlink()
    assert main(["--base", str(base), "--texts", str(texts), "--output", str(tmp_path / "out")]) == 2
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be loaded" in told
    assert not (tmp_path / "out").exists()
