"""Owns the command line of fine-tuning; knows no tensor."""

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
    """Exit status: 0 success, 1 write error, 2 unusable input, 130 interrupted."""
    given = vars(_parser().parse_args(arguments))
    from export.finetune.run import Options, finetune  # lazily: importing torch takes seconds

    try:
        finetune(Options(**given))
    except (DataError, FinetuneError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"Stopped: {error}. Run the same command again to resume from the last checkpoint.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to resume from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.finetune",
        description="Fine-tune an encoder for extractive question answering on SQuAD files. "
        "An interrupted run resumes when the same command is run again.",
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
        help="SQuAD v1 or v2 JSON files, plain text (.txt, see export/passages.py), or JSON Lines "
        "of paragraphs with candidate answers (see export/finetune/sources.py); @0.2 uses a random fifth of "
        "the questions",
    )
    required.add_argument(
        "--output",
        required=True,
        default=argparse.SUPPRESS,
        type=Path,
        metavar="FOLDER",
        help="Hugging Face folder to write; checkpoints go to FOLDER.checkpoint",
    )
    add = parser.add_argument
    add("--epochs", type=count, default=3, help="passes over the data")
    add("--max-steps", type=count, metavar="N", help="stop after N steps at the latest")
    add("--batch-size", type=count, default=16, help="windows per step")
    add("--learning-rate", type=_number(float, 1e-9), default=2e-4, help="peak learning rate")
    add("--warmup-ratio", type=share, default=0.06, help="share of the steps with a rising learning rate")
    add(
        "--schedule",
        choices=("linear", "cosine", "constant"),
        default="linear",
        help="decay of the learning rate",
    )
    add("--max-seq-length", type=count, default=384, help="tokens per window")
    add("--doc-stride", type=_number(int, 0), default=128, help="overlap of consecutive windows in tokens")
    add("--seed", type=_number(int, 0), default=0, help="random seed")
    add("--dropout", type=_number(float, 0, 0.9), default=0.0, help="dropout probability (slow on a CPU)")
    add(
        "--activation",
        metavar="NAME",
        help="replacement for the base's activation, such as relu, which int8 graphs run faster",
    )
    add("--train-embeddings", action="store_true", help="train the word embeddings, too")
    add("--teacher", metavar="MODEL", help="fine-tuned model to distil from")
    add(
        "--teacher-weight",
        type=share,
        default=0.5,
        help="weight of the teacher's probabilities against the labels",
    )
    add(
        "--temperature", type=_number(float, 0.1), default=2.0, help="softmax temperature of the distillation"
    )
    add(
        "--hide-fraction",
        type=share,
        default=0.0,
        help="share of word tokens to mask, drawn anew every epoch",
    )
    add(
        "--no-answer-fraction",
        type=_number(float, 0),
        default=0.0,
        help="hard unanswerable examples to generate, as a share of the answerable questions: with the most "
        "similar passage of the file, or without the answer's sentence",
    )
    add(
        "--hold-out",
        nargs="+",
        default=[],
        metavar="TITLE",
        help="articles to exclude from training, in every file; their questions go to FOLDER/held-out.json, "
        "for python -m export --calibrate",
    )
    add(
        "--average-with-base",
        action="store_true",
        help="save the mean of the weights of a fine-tuned base and the result",
    )
    add("--mimic", metavar="MODEL", help="fine-tuned model of the same shape to distil layer by layer")
    add("--checkpoint-minutes", type=_number(float, 0), default=3.0, help="minutes between checkpoints")
    add("--restart", action="store_true", help="discard an earlier checkpoint or output")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="auto: bf16 if the device supports it",
    )
    add("--no-compile", action="store_true", help="do not use torch.compile")
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
