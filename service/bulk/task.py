"""Owns what one bulk run is to do, as its flags say; knows no file from inside and loads no model."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from service.engine.parameters import Parameters
from service.errors import QAError

INPUTS = ("jsonl", "csv", "tsv", "parquet", "squad")
OUTPUTS = (*INPUTS, "predictions")
_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "squad",
}


class BadFile(QAError):
    """A file of a bulk run cannot be read, written or continued."""

    code = "bad_file"


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a file's columns (JSON: of its fields); `answer` is the one that is added."""

    question: str = "question"
    context: str = "context"
    id: str = "id"
    answer: str = "prediction"


@dataclass(frozen=True, slots=True)
class Task:
    """One run. The formats are of INPUTS and OUTPUTS, `delimiter` is CSV's, `address` the Ray cluster's."""

    input: Path
    output: Path
    errors: Path
    input_format: str
    output_format: str
    columns: Columns
    delimiter: str
    parameters: Parameters
    engine: str
    address: str | None
    restart: bool
    fail_on_errors: bool

    @property
    def journal(self) -> Path:
        """What is done so far, while it is not all."""
        return _beside(self.output, ".journal")


def read_task(options: argparse.Namespace) -> Task:
    """The task that the flags describe; raises BadFile and InvalidInput where there can be none."""
    input_format = options.input_format or _by_suffix(options.input, "--input-format", INPUTS)
    output_format = options.output_format or _by_suffix(options.output, "--output-format", OUTPUTS)
    if output_format not in (input_format, "jsonl", "predictions"):
        raise BadFile(
            f"The input is {input_format} and the output {output_format}: "
            "the output has the input's format, or is jsonl or predictions."
        )
    delimiter = "\t" if input_format == "tsv" else options.delimiter
    if len(delimiter) != 1:
        raise BadFile("The delimiter must be one character.", field="delimiter")
    errors = options.errors or _beside(options.output, ".errors.jsonl")
    if len({path.resolve() for path in (options.input, options.output, errors)}) < 3:
        raise BadFile("Input, output and errors must be three files.")
    return Task(
        input=options.input,
        output=options.output,
        errors=errors,
        input_format=input_format,
        output_format=output_format,
        columns=Columns(**{c.name: getattr(options, f"{c.name}_column") for c in fields(Columns)}),
        delimiter=delimiter,
        parameters=Parameters(**{p.name: getattr(options, p.name) for p in fields(Parameters)}),
        engine=options.engine,
        address=options.address,
        restart=options.restart,
        fail_on_errors=options.fail_on_errors,
    )


def _by_suffix(path: Path, flag: str, known: tuple[str, ...]) -> str:
    found = _BY_SUFFIX.get(path.suffix.lower())
    if found is None:
        raise BadFile(f"The name {path.name} does not tell its format: give {flag} ({', '.join(known)}).")
    return found


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
