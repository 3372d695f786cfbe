"""Owns the reduction of a unigram vocabulary to what given texts use; knows no training and no graph."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Metaspace, Split, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import set_verbosity_error

from export.errors import ExportError
from export.finetune import FinetuneError
from export.finetune.base import find_base, load_encoder, load_tokenizer
from export.finetune.sources import Source, read_all
from export.squad import DataError

_BATCH = 2000  # texts tokenized at a time
# Single characters that are always kept, so that no text of these scripts has an unknown token.
_LAST_LETTER = 0x52F  # Latin, Greek and Cyrillic end here
_OTHER_CHARACTERS = frozenset("▁–—‘’“”…€£•")
# Punctuation with the sign of the space before it. Percent signs stay with their number, and what joins
# letters or digits ("10,000", "U.S", "well-known", "AT&T") is not at a word's end.
_JOINING = r".,:'’\-&@#"
_PUNCTUATION = rf"▁?(?:[^\P{{P}}%{_JOINING}]|(?<!\w)[{_JOINING}]|[{_JOINING}](?!\w))"


def reduce(base: str, files: Sequence[Path], size: int, output: Path) -> None:
    """Write the model with at most `size` pieces: single characters, then the most frequent in the texts.

    A multilingual model's vocabulary takes most of its memory, and one language uses a tenth of it (Abdaoui
    et al. 2020, "Load What You Need"). Texts of other languages get more tokens, or unknown ones. Special
    tokens are kept, and words end before punctuation (see `split_punctuation`). Raises ExportError for a
    tokenizer that is not a unigram model or an `output` that exists, FinetuneError for a base that cannot be
    loaded and DataError for an unusable file.
    """
    if output.exists():
        raise ExportError(f"{output} exists: choose another --output.")
    found = find_base(base)
    tokenizer = load_tokenizer(found)
    split_punctuation(tokenizer.backend_tokenizer)
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    processor = description["post_processor"] or {}
    if description["model"]["type"] != "Unigram" or processor.get("type") != "TemplateProcessing":
        raise ExportError(f"The tokenizer of {found.id} is no unigram model as XLM-R's: it stays as it is.")
    questions = [q for file in read_all([Source(file) for file in files], (), 0)[0] for q in file.questions]
    counts = _count(
        tokenizer.backend_tokenizer, {text for q in questions for text in (q.context, q.question)}
    )
    pieces = [piece for piece, _ in description["model"]["vocab"]]
    kept = _choose(pieces, counts, set(tokenizer.all_special_ids), size)
    model = load_encoder(found)
    rows = model.get_input_embeddings().weight.detach()[kept]
    model.resize_token_embeddings(len(kept))
    model.get_input_embeddings().weight.data.copy_(rows)
    new_ids = {old: new for new, old in enumerate(kept)}
    model.config.pad_token_id = new_ids[tokenizer.pad_token_id]
    _renumber(description, new_ids)
    state = {name: value for name, value in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(output, safe_serialization=True, state_dict=state)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers'
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    ).save_pretrained(output)
    share = sum(counts[i] for i in kept) / max(sum(counts.values()), 1)
    print(f"{len(kept)} of {len(pieces)} pieces, {share:.1%} of the texts' tokens", file=sys.stderr)


def split_punctuation(tokenizer: Tokenizer) -> None:
    """Make punctuation at a word's end, brackets and quotes words of their own, in place.

    Answers are whole words. Those of a tokenizer that splits at spaces only end with the full stop of their
    sentence. The pieces stay the same, except for the few that contain both ("2013."): of the default model's
    texts, 0.7% more tokens.
    """
    words = [WhitespaceSplit(), Metaspace(prepend_scheme="always")]
    tokenizer.pre_tokenizer = PreTokenizers([*words, Split(Regex(_PUNCTUATION), "isolated")])


def _count(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """How often each piece occurs; ties later depend on the texts alone, not on their order."""
    counts: Counter[int] = Counter()
    ordered = sorted(texts)
    for first in range(0, len(ordered), _BATCH):
        for encoding in tokenizer.encode_batch(ordered[first : first + _BATCH], add_special_tokens=False):
            counts.update(encoding.ids)
    return counts


def _choose(pieces: Sequence[str], counts: Counter[int], special: set[int], size: int) -> list[int]:
    """Ids to keep in their new order: leading special, characters, frequent pieces, other special."""
    front = [i for i in sorted(special) if i < len(special)]
    kept = front + [i for i, piece in enumerate(pieces) if i not in special and _is_character(piece)]
    have = {*kept, *special}
    for i, _ in counts.most_common():
        if len(kept) >= size:
            break
        if i not in have:
            kept.append(i)
    return kept + sorted(special - set(front))


def _is_character(piece: str) -> bool:
    """Whether this is one character of the alphabets above, with or without the space before it."""
    return len(piece.replace("▁", "")) <= 1 and all(
        ord(letter) <= _LAST_LETTER or letter in _OTHER_CHARACTERS for letter in piece
    )


def _renumber(description: dict[str, Any], new_ids: dict[int, int]) -> None:
    """Replace the ids in the content of a tokenizer.json, in place."""
    model = description["model"]
    model["vocab"] = [model["vocab"][i] for i in new_ids]
    model["unk_id"] = new_ids[model["unk_id"]]
    description["added_tokens"] = [
        {**token, "id": new_ids[token["id"]]}
        for token in description["added_tokens"]
        if token["id"] in new_ids
    ]
    for token in description["post_processor"]["special_tokens"].values():
        token["ids"] = [new_ids[i] for i in token["ids"]]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 not reducible."""
    parser = argparse.ArgumentParser(
        prog="python -m export.vocabulary",
        description="Keep of a multilingual encoder's vocabulary what your texts use, before fine-tuning. "
        "For unigram tokenizers such as those of XLM-R and E5.",
    )
    parser.add_argument("--base", required=True, metavar="MODEL", help="hub id, folder or Python package")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, metavar="FILE", help="training files")
    parser.add_argument("--size", type=int, default=28000, help="pieces to keep (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers'; a missing pooler is no news
    try:
        reduce(options.base, options.texts, options.size, options.output)
    except (ExportError, FinetuneError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
