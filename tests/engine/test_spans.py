"""The vectorised span search against a brute-force search, and its memory use."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.spans import WindowProbabilities, count_spans, normalise, top_spans
from service.engine.windowing import Window, WindowLogits

PROBABILITY = st.floats(0, 1, width=32, allow_subnormal=False)


def window(tokens: int, first: int = 0) -> Window:
    """CLS, two question tokens, SEP, `tokens` context tokens, SEP."""
    ids = np.arange(tokens + 5)
    return Window(ids, np.zeros_like(ids), context_at=4, cls_at=0, first=first, last=first + tokens)


def logits(tokens: int, seed: int) -> WindowLogits:
    random = np.random.default_rng(seed)
    start, end = random.normal(0, 4, (2, tokens + 5)).astype(np.float32)
    return WindowLogits(start, end)


@given(
    st.lists(st.tuples(PROBABILITY, PROBABILITY), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 200),
)
def test_equals_a_brute_force_search(pairs: list[tuple[float, float]], longest: int, count: int) -> None:
    start, end = np.array(pairs, dtype=np.float32).T
    found = list(top_spans(WindowProbabilities(start, end), longest, count))
    plain = sorted(
        (float(start[i] * end[j]) for i in range(len(pairs)) for j in range(i, min(i + longest, len(pairs)))),
        reverse=True,
    )
    assert [span.score for span in found] == plain[:count]
    assert count_spans(len(pairs), longest) == len(plain)
    assert len({(span.first, span.last) for span in found}) == len(found)
    for span in found:
        assert span.first <= span.last < min(span.first + longest, len(pairs))
        assert span.score == start[span.first] * end[span.last]


def test_no_tokens_have_no_spans() -> None:
    empty = np.zeros(0, dtype=np.float32)
    assert list(top_spans(WindowProbabilities(empty, empty), 15, 3)) == []


def test_underflow_still_gives_valid_spans() -> None:
    nothing = np.zeros(4, dtype=np.float32)
    found = list(top_spans(WindowProbabilities(nothing, nothing), 2, 100))
    assert len(found) == 7
    assert all(span.first <= span.last <= span.first + 1 for span in found)


def test_memory_grows_with_tokens_not_with_their_square() -> None:
    tokens, longest = 50_000, 15
    even = np.full(tokens, 1 / tokens, dtype=np.float32)
    tracemalloc.start()
    list(top_spans(WindowProbabilities(even, even), longest, 12))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * tokens * longest  # bytes; quadratic memory would be 10 GB


def test_both_scorings_agree_on_one_window() -> None:
    one = [window(30)], [logits(30, 1)]
    (globally,), null = normalise(*one, per_window=False)
    (alone,), null_alone = normalise(*one, per_window=True)
    assert np.array_equal(globally.start, alone.start)
    assert np.array_equal(globally.end, alone.end)
    assert null == null_alone
    cls = np.exp(one[1][0].start[0] - one[1][0].start.max())
    assert float(alone.start.sum()) < 1  # CLS has the remaining probability
    assert cls > 0


def test_global_scoring_normalises_over_all_windows() -> None:
    windows = [window(30), window(20, first=15)]
    found = [logits(30, 1), logits(20, 2)]
    shared, null = normalise(windows, found, per_window=False)
    assert sum(float(p.start.sum()) for p in shared) < 1
    # Raising every logit of one window moves probability to it; per-window scores do not change.
    raised = replace(found[1], start=found[1].start + 5, end=found[1].end + 5)
    moved, _ = normalise(windows, [found[0], raised], per_window=False)
    assert float(moved[1].start.sum()) > float(shared[1].start.sum())
    alone, null_alone = normalise(windows, found, per_window=True)
    alone_raised, _ = normalise(windows, [found[0], raised], per_window=True)
    assert alone_raised[1].start == pytest.approx(alone[1].start, abs=1e-6)
    assert 0 <= null <= 1
    assert 0 <= null_alone <= 1


def test_the_null_score_is_the_minimum_over_windows() -> None:
    windows = [window(10), window(10, first=5)]
    sure, unsure = logits(10, 3), logits(10, 4)
    sure.start[0] = sure.end[0] = 20.0  # this window favours no answer
    unsure.start[0] = unsure.end[0] = -20.0
    for per_window in (True, False):
        _, null = normalise(windows, [sure, unsure], per_window=per_window)
        assert null < 1e-6
    _, both = normalise(windows, [sure, sure], per_window=False)
    assert both > 0.9


def test_without_cls_the_null_score_is_zero() -> None:
    bare = replace(window(10), cls_at=None)
    _, null = normalise([bare], [logits(10, 5)], per_window=False)
    assert null == 0.0
