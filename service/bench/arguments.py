"""Owns the flags of `bench`; knows nothing of what they do."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags but those of the settings."""
    add = parser.add_argument
    add("--mode", choices=("engine", "http", "both"), default="both", help="the library, a server, or both")
    add("--url", metavar="URL", help="a running server to measure (default: starts one)")
    add("--questions", type=Path, metavar="FILE", help="SQuAD file or JSON lines (default: built in)")
    add(
        "--concurrency",
        type=_numbers(int),
        default=[1, 4, 16],
        metavar="N,N,..",
        help="callers of the closed loop (default 1,4,16)",
    )
    add("--rate", type=_numbers(float), default=[], metavar="R,R,..", help="arrivals per second (open loop)")
    add(
        "--overload",
        type=_numbers(float),
        default=[],
        metavar="X,X,..",
        help="arrivals at X times the server's best closed loop before",
    )
    add("--lengths", type=_numbers(int), default=[], metavar="T,T,..", help="tokens per question, one caller")
    add("--seconds", type=float, default=5.0, help="per measurement (default 5)")
    add("--warm-up", type=float, default=1.0, help="seconds before each (default 1)")
    add("--deadline", type=float, metavar="S", help="seconds sent along as X-Request-Timeout")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    add("--html", type=Path, metavar="FILE", help="write a page with plots")


def _numbers(kind: type[int] | type[float]) -> Callable[[str], list[float]]:
    """A parser of positive numbers with commas between."""

    def parse(text: str) -> list[float]:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
        if not all(0 < number < float("inf") for number in numbers):
            raise argparse.ArgumentTypeError(f"{text} holds a number that is not above 0")
        return list(numbers)

    parse.__name__ = "list of numbers"
    return parse
