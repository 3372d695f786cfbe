"""Owns the specification of a bulk run, from its flags; reads no file and loads no model."""

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
    """A file of a bulk run cannot be read, written or resumed from."""

    code = "bad_file"


@dataclass(frozen=True, slots=True)
class Columns:
    """Column names (in JSON: field names); `answer` is the added one."""

    question: str = "question"
    context: str = "context"
    id: str = "id"
    answer: str = "prediction"


@dataclass(frozen=True, slots=True)
class Task:
    """One run. Formats are among INPUTS and OUTPUTS; `delimiter` is for CSV, `address` is a Ray cluster."""

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
        """The journal; it exists until the run is complete."""
        return _beside(self.output, ".journal")


def read_task(options: argparse.Namespace) -> Task:
    """The task for these flags; raises BadFile and InvalidInput for invalid combinations."""
    input_format = options.input_format or _by_suffix(options.input, "--input-format", INPUTS)
    output_format = options.output_format or _by_suffix(options.output, "--output-format", OUTPUTS)
    if output_format not in (input_format, "jsonl", "predictions"):
        raise BadFile(
            f"The input is {input_format} and the output {output_format}: "
            "the output format must be that of the input, jsonl or predictions."
        )
    delimiter = "\t" if input_format == "tsv" else options.delimiter
    if len(delimiter) != 1:
        raise BadFile("The delimiter must be one character.", field="delimiter")
    errors = options.errors or _beside(options.output, ".errors.jsonl")
    if len({path.resolve() for path in (options.input, options.output, errors)}) < 3:
        raise BadFile("Input, output and errors file must be three different files.")
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
        raise BadFile(
            f"The extension of {path.name} is not that of a format: set {flag} ({', '.join(known)})."
        )
    return found


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
