"""Tokens equal those of `Tokenizer.encode` for every family and length, within the deadline."""

import math
import threading
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.engine import tokenization
from service.engine.artifact import load_artifact
from service.engine.tokenization import NO_WORD, TextTokenizer, TokenizedText
from service.errors import DeadlineExceeded, InvalidInput
from tests.texts import TEXTS
from tests.tokenizer_kinds import KINDS, tokenizer_of

ROOT = Path(__file__).resolve().parents[2]
TINY = load_artifact(ROOT / "tests/models/tiny-int8")
FILES = {"tiny": ROOT / "tests/models/tiny-int8", "default": ROOT / "models/default"}
JAPANESE = "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3042\u308a\u3001"


@cache
def both(kind: str) -> tuple[Tokenizer, TextTokenizer]:
    """The library's tokenizer, and the service's tokenizer for the same file."""
    if kind in FILES:
        artifact = load_artifact(FILES[kind])
        return Tokenizer.from_file(str(artifact.tokenizer_path)), TextTokenizer(artifact)
    backend = tokenizer_of(kind)
    with TemporaryDirectory() as folder:
        backend.save(f"{folder}/tokenizer.json")
        if kind == "robbert":  # the service's tokenizer does not trim offsets
            backend.post_processor.trim_offsets = False
        cls = backend.token_to_id(KINDS[kind][1]["cls_token"])
        return backend, TextTokenizer(replace(TINY, path=Path(folder), cls_id=cls))


def check(found: TokenizedText, whole: Tokenizer, text: str) -> None:
    expected = whole.encode(text, add_special_tokens=False)
    assert found.ids.tolist() == expected.ids
    assert found.offsets.tolist() == [list(place) for place in expected.offsets]
    assert found.words.tolist() == [NO_WORD if word is None else word for word in expected.word_ids]


@pytest.mark.parametrize("kind", [*KINDS, *FILES])
@given(text=TEXTS)
def test_tokens_and_offsets_are_equal(kind: str, text: str) -> None:
    whole, served = both(kind)
    check(served.tokenize(text, "context"), whole, text)


@pytest.mark.parametrize("kind", [*KINDS, *FILES])
@given(text=TEXTS, size=st.integers(1, 20))
@settings(max_examples=50)
def test_tokens_of_sliced_texts_are_equal(kind: str, text: str, size: int) -> None:
    whole, served = both(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "_LONG", 0)
        patch.setattr(tokenization, "_SLICE", size)
        check(served.tokenize(text, "context"), whole, text)


@pytest.mark.parametrize("kind", [*KINDS, *FILES])
def test_a_very_long_text(kind: str) -> None:
    whole, served = both(kind)
    text = JAPANESE * 1000 + "[SEP] e\u0301 " * 1000
    check(served.tokenize(text, "context", time.monotonic() + 60), whole, text)


@pytest.mark.parametrize("length", [1, 100_000])
def test_a_lone_surrogate_is_rejected(length: int) -> None:
    _, served = both("default")
    with pytest.raises(InvalidInput) as caught:
        served.tokenize("a" * length + "\ud83d", "question")
    assert caught.value.field == "question"


@pytest.mark.parametrize("text", ["short", JAPANESE * 10_000])
def test_a_deadline_that_has_passed(text: str) -> None:
    _, served = both("default")
    with pytest.raises(DeadlineExceeded):
        served.tokenize(text, "context", time.monotonic())


def test_a_long_text_blocks_no_other_thread() -> None:
    """Neither a caller beyond its deadline, nor other Python threads."""
    _, served = both("default")
    text = JAPANESE * 40_000
    ticks = []
    finished = threading.Event()

    def tick() -> None:
        while not finished.wait(0.001):
            ticks.append(time.monotonic())

    other = threading.Thread(target=tick)
    other.start()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        served.tokenize(text, "context", began + 0.05)
    tokens = served.tokenize(text, "context", math.inf)
    ended = time.monotonic()
    finished.set()
    other.join()
    assert tokens.offsets[-1, 1] == len(text)
    # There would be almost none if the library held the GIL.
    assert sum(began < tick < ended for tick in ticks) > 20
