"""Coverage-guided fuzzing: `python -m tests.fuzz.run TARGET [libFuzzer's options]`.

A target is a module of this folder with SEEDS, a list of bytes, and check(data), which raises on a finding.
Inputs that reach new code are kept in build/fuzz/TARGET, the corpus of the next run. Findings become tests
(see test_fuzz.py).
"""

import importlib
import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).resolve().parents[2] / "build/fuzz"


def main() -> None:
    """Fuzz until a limit of libFuzzer's options or the first finding."""
    name, options = sys.argv[1], sys.argv[2:]
    with atheris.instrument_imports(include=["service", "json", "tests.fuzz"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            f"-artifact_prefix={corpus}/",
            "-max_len=8192",
            "-len_control=0",
            *options,
            str(corpus),
        ],
        target.check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
