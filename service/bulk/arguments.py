"""Owns the flags of `bulk`; knows nothing of what they do."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

from service.bulk.task import INPUTS, OUTPUTS, Columns
from service.engine.parameters import Parameters, Scoring


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags but those of the settings."""
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FILE", help="JSON lines, CSV, Parquet or SQuAD JSON")
    add("--output", type=Path, required=True, metavar="FILE", help="the same with a column for the answer")
    add("--errors", type=Path, metavar="FILE", help="bad rows and why (default: OUTPUT.errors.jsonl)")
    add("--restart", action="store_true", help="begin anew: forget an earlier run, replace its output")
    add("--fail-on-errors", action="store_true", help="exit status 1 where a row was bad")
    add("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    add("--address", help="address of the Ray cluster (default: that of RAY_ADDRESS, else a local one)")
    files = parser.add_argument_group("files")
    add = files.add_argument
    add("--input-format", choices=INPUTS, help="where the name does not tell")
    add("--output-format", choices=OUTPUTS, help="the input's, jsonl, or predictions: {id: answer, ...}")
    add("--delimiter", default=",", metavar="C", help="between the cells of CSV (default a comma)")
    for column in fields(Columns):
        add(f"--{column.name}-column", default=column.default, metavar="NAME", help=f"({column.default})")
    questions = parser.add_argument_group("parameters", "as in the HTTP interface, for every row")
    types = get_type_hints(Parameters)
    for parameter in fields(Parameters):
        flag = "--" + parameter.name.replace("_", "-")
        if types[parameter.name] is bool:
            questions.add_argument(flag, action=argparse.BooleanOptionalAction, default=parameter.default)
        elif parameter.name == "scoring":
            questions.add_argument(flag, choices=get_args(Scoring), default=parameter.default)
        else:
            kind = float if parameter.name == "null_threshold" else int
            questions.add_argument(flag, type=kind, default=parameter.default, metavar="N")
