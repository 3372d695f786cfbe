"""Owns the command-line flags of `bulk`; knows no effect of them."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

from service.bulk.task import INPUTS, OUTPUTS, Columns
from service.engine.parameters import Parameters, Scoring

_HELP = {
    "top_k": "number of distinct answers, best first",
    "max_answer_len": "maximum tokens of an answer",
    "max_seq_len": "maximum tokens of a window",
    "doc_stride": "overlap of consecutive windows, in tokens",
    "max_question_len": "maximum tokens of the question; the rest is cut off",
    "handle_impossible_answer": "allow 'no answer'",
    "align_to_words": "extend answers to whole words",
    "scoring": "one softmax over all windows, or one for each as upstream",
    "null_threshold": "log-odds above which 'no answer' is returned",
    "token_probabilities": "add start and end probabilities of every token",
}
_DEFAULTS = {"doc_stride": "128", "max_question_len": "no limit", "null_threshold": "the model's"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags except those of the settings."""
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FILE", help="JSON Lines, CSV, Parquet or SQuAD JSON")
    add("--output", type=Path, required=True, metavar="FILE", help="the rows of the input with a prediction")
    add("--errors", type=Path, metavar="FILE", help="invalid rows and reasons (default: OUTPUT.errors.jsonl)")
    add("--restart", action="store_true", help="start over: discard an earlier run and its output")
    add("--fail-on-errors", action="store_true", help="exit status 1 if any row is invalid")
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="run on this machine or on a Ray cluster (default local)",
    )
    add("--address", help="address of the Ray cluster (default: RAY_ADDRESS, else a local one)")
    files = parser.add_argument_group("files")
    add = files.add_argument
    add("--input-format", choices=INPUTS, help="default: by file extension")
    add(
        "--output-format",
        choices=OUTPUTS,
        help="default: that of the input; predictions is {id: answer, ...}",
    )
    add("--delimiter", default=",", metavar="C", help="field separator of CSV (default a comma)")
    for column in fields(Columns):
        add(
            f"--{column.name}-column",
            default=column.default,
            metavar="NAME",
            help=f"default {column.default}",
        )
    questions = parser.add_argument_group("parameters", "as in the HTTP API, for every row")
    types = get_type_hints(Parameters)
    for parameter in fields(Parameters):
        flag = "--" + parameter.name.replace("_", "-")
        default = _DEFAULTS.get(parameter.name, parameter.default)
        text = f"{_HELP[parameter.name]} (default {default})"
        if types[parameter.name] is bool:
            questions.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=parameter.default, help=text
            )
        elif parameter.name == "scoring":
            questions.add_argument(flag, choices=get_args(Scoring), default=parameter.default, help=text)
        else:
            kind = float if parameter.name == "null_threshold" else int
            questions.add_argument(flag, type=kind, default=parameter.default, metavar="N", help=text)
