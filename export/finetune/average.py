"""Owns the weight average of fine-tuned models: `python -m export.finetune.average`; trains nothing."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from export.finetune import FinetuneError
from export.finetune.base import find_base, has_answer_head, load_model, load_tokenizer
from export.finetune.run import RECORD, identity, save
from export.finetune.training import average


def mean_of(names: Sequence[str], weights: Sequence[float], output: Path) -> None:
    """Save the weighted mean of the models' weights, with the tokenizer of the first.

    For models fine-tuned from one base with different data or data order, which can run in parallel (Wortsman
    et al. 2022, "Model soups"), and for a model and its base (Wortsman et al. 2021, "Robust fine-tuning of
    zero-shot models"). Raises FinetuneError if there is not one weight above 0 a model, shapes differ, an
    answer head is missing, or `output` exists.
    """
    if len(weights) != len(names) or not all(0 < weight < math.inf for weight in weights):
        raise FinetuneError(f"Give one positive number per model as --weights, {len(names)} in all.")
    if output.exists():
        raise FinetuneError(f"{output} exists: choose another --output.")
    bases = [find_base(name) for name in names]
    for base in bases:
        if not has_answer_head(base):
            raise FinetuneError(f"{base.id} has no question-answering head: there is nothing to average.")
    model = load_model(bases[0])
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for number, base in enumerate(bases[1:], 1):
        other = load_model(base)
        if {name: tensor.shape for name, tensor in other.state_dict().items()} != shapes:
            raise FinetuneError(f"{base.id} and {bases[0].id} have other shapes: they have no mean.")
        average(model, other, weights[number] / sum(weights[: number + 1]))
    record = {"arguments": {"mean_of": [identity(base) for base in bases], "weights": list(weights)}}
    save(output, model, load_tokenizer(bases[0]), record, ())


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 success, 2 unusable input."""
    parser = argparse.ArgumentParser(
        prog="python -m export.finetune.average",
        description="Save the mean of fine-tuned models of one base.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="Hugging Face folders")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="NUMBER", help="one per model (default: equal weights)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        mean_of(options.models, options.weights or [1.0] * len(options.models), options.output)
    except FinetuneError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"saved {options.output}: the mean of {json.dumps(options.models)}, see {RECORD}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
