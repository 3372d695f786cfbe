"""Owns the command line of fine-tuning, from arguments to a saved folder; knows no tensor."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from export.finetune import FinetuneError
from export.finetune.sources import parse_source
from export.squad import DataError

N = TypeVar("N", int, float)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 trained, 1 a file could not be written, 2 unusable input, 130 interrupted."""
    given = vars(_parser().parse_args(arguments))
    from export.finetune.run import Options, finetune  # torch takes seconds: --help need not wait

    try:
        finetune(Options(**given))
    except (DataError, FinetuneError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Stopped: {error}. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.finetune",
        description="Fine-tune an encoder for extractive question answering on SQuAD files. "
        "A run that was killed goes on where it was when the same command is given again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    count = _number(int, 1)
    share = _number(float, 0, 1)
    required = parser.add_argument_group("required")
    required.add_argument(
        "--base",
        required=True,
        default=argparse.SUPPRESS,
        metavar="MODEL",
        help="folder, hub id, or installed Python package with a model/ folder",
    )
    required.add_argument(
        "--train",
        required=True,
        default=argparse.SUPPRESS,
        nargs="+",
        type=parse_source,
        metavar="FILE[@SHARE]",
        help="SQuAD v1 or v2 JSON files, or JSON lines of paragraphs with candidate answers (see "
        "export/finetune/sources.py); @0.2 takes a fifth of the questions, at random",
    )
    required.add_argument(
        "--output",
        required=True,
        default=argparse.SUPPRESS,
        type=Path,
        metavar="FOLDER",
        help="where the Hugging Face folder goes; checkpoints go to FOLDER.checkpoint",
    )
    add = parser.add_argument
    add("--epochs", type=count, default=3, help="times over the data")
    add("--max-steps", type=count, metavar="N", help="stop after N steps, if the epochs have more")
    add("--batch-size", type=count, default=16, help="windows per step")
    add("--learning-rate", type=_number(float, 1e-9), default=2e-4, help="at its highest")
    add("--warmup-ratio", type=share, default=0.06, help="share of the steps in which it rises")
    add("--schedule", choices=("linear", "cosine", "constant"), default="linear", help="of its fall")
    add("--max-seq-length", type=count, default=384, help="tokens per window")
    add(
        "--doc-stride", type=_number(int, 0), default=128, help="tokens by which neighbouring windows overlap"
    )
    add("--seed", type=_number(int, 0), default=0, help="of every random choice")
    add("--dropout", type=_number(float, 0, 0.9), default=0.0, help="slow on a CPU")
    add("--activation", metavar="NAME", help="replaces the base's, as relu, which int8 graphs run faster")
    add("--train-embeddings", action="store_true", help="train the word embeddings too")
    add("--teacher", metavar="MODEL", help="a fine-tuned model to distil from")
    add("--teacher-weight", type=share, default=0.5, help="of its probabilities against the annotators'")
    add("--temperature", type=_number(float, 0.1), default=2.0, help="that softens its probabilities")
    add("--hide-fraction", type=share, default=0.0, help="of the words' tokens to mask, others every epoch")
    add(
        "--no-answer-fraction",
        type=_number(float, 0),
        default=0.0,
        help="hard unanswerable examples to make, as a share of the answered questions: with the most "
        "similar passage of the file, or without the answer's sentence",
    )
    add(
        "--hold-out",
        nargs="+",
        default=[],
        metavar="TITLE",
        help="articles to keep out of training, in every file: they go to FOLDER/held-out.json, for "
        "python -m export --calibrate",
    )
    add("--average-with-base", action="store_true", help="leave the mean of a fine-tuned base and the result")
    add("--mimic", metavar="MODEL", help="a fine-tuned model of the same shape to follow, layer by layer")
    add("--checkpoint-minutes", type=_number(float, 0), default=3.0, help="between checkpoints")
    add("--restart", action="store_true", help="discard an earlier checkpoint or output")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where it is fast")
    add("--no-compile", action="store_true", help="do not use torch.compile, even where it would work")
    return parser


def _number(kind: type[N], low: float, high: float = float("inf")) -> Callable[[str], N]:
    """A parser of finite numbers in [low, high]."""

    def parse(text: str) -> N:
        value = kind(text)
        if not low <= value <= high or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not in [{low}, {high}]")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


if __name__ == "__main__":
    sys.exit(main())
