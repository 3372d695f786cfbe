"""Owns the command-line flags of `bench`; knows no effect of them."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags except those of the settings."""
    add = parser.add_argument
    add(
        "--mode",
        choices=("engine", "http", "both"),
        default="both",
        help="measure the engine in process, a server over HTTP, or both (default)",
    )
    add("--url", metavar="URL", help="a running server to measure (default: start one)")
    add("--questions", type=Path, metavar="FILE", help="SQuAD file or JSON lines (default: built in)")
    add(
        "--concurrency",
        type=_numbers(int),
        default=[1, 4, 16],
        metavar="N,N,..",
        help="concurrent clients of the closed loop (default 1,4,16)",
    )
    add(
        "--rate",
        type=_numbers(float),
        default=[],
        metavar="R,R,..",
        help="arrival rates per second (open loop)",
    )
    add(
        "--overload",
        type=_numbers(float),
        default=[],
        metavar="X,X,..",
        help="arrivals at X times the best rate of the server's closed loops",
    )
    add("--lengths", type=_numbers(int), default=[], metavar="T,T,..", help="tokens per request, one client")
    add("--seconds", type=float, default=5.0, help="duration of each measurement (default 5)")
    add("--warm-up", type=float, default=1.0, help="warm-up seconds before each (default 1)")
    add("--deadline", type=float, metavar="S", help="seconds to send as X-Request-Timeout")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    add("--html", type=Path, metavar="FILE", help="write an HTML report with plots")


def _numbers(kind: type[int] | type[float]) -> Callable[[str], list[float]]:
    """A parser of comma-separated positive numbers."""

    def parse(text: str) -> list[float]:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
        if not all(0 < number < float("inf") for number in numbers):
            raise argparse.ArgumentTypeError(f"{text} holds a number that is not above 0")
        return list(numbers)

    parse.__name__ = "list of numbers"
    return parse
