"""Failure criteria of the soak test."""

import pytest

from service.bench.soak import Part, _report

STEADY = [0.1] * 10


def parts(p99: list[float], memory: list[float]) -> list[Part]:
    return [Part([seconds] * 200, size) for seconds, size in zip(p99, memory, strict=True)]


@pytest.mark.parametrize(
    ("p99", "memory", "wrong", "failed"),
    [
        (STEADY, [90.0] * 10, [], False),
        ([9.0, 9.0, *STEADY[2:]], [10.0, 20.0, *[90.0] * 8], [], False),  # warm-up
        ([0.1, 0.1, *(0.1 + 0.02 * n for n in range(8))], [90.0] * 10, [], True),
        ([*STEADY[:5], 9.0, *STEADY[6:]], [90.0] * 10, [], False),  # a single outlier
        (STEADY, [90.0 + n for n in range(10)], [], True),
        (STEADY, [90.0] * 10, ["another answer than the engine's"], True),
    ],
)
def test_growth_and_wrong_replies_fail(
    p99: list[float],
    memory: list[float],
    wrong: list[str],
    failed: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _report(parts(p99, memory), wrong, 0.02, judged=True) == failed
    assert "p99 after warm-up" in capsys.readouterr().out


def test_latency_of_a_short_run_is_reported_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report(parts([0.1 + 0.1 * n for n in range(10)], [90.0] * 10), [], 0.02, judged=False) == 0
    assert "checked in runs of 10 minutes or more" in capsys.readouterr().out
