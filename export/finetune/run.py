"""Owns the stages of fine-tuning and the output folder; knows no tensor and no flag."""

import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from export.finetune import FinetuneError
from export.finetune.base import (
    Base,
    check_room,
    find_base,
    has_answer_head,
    load_model,
    load_tokenizer,
    token_limit,
)
from export.finetune.batches import Vocabulary
from export.finetune.checkpoint import Checkpoint
from export.finetune.examples import Example, Feature, build_examples, build_features
from export.finetune.mimic import check_shapes
from export.finetune.sources import Source, read_all, write_squad
from export.finetune.teacher import Soft, Teacher, teach
from export.finetune.training import (
    Execution,
    Outcome,
    Recipe,
    average,
    bf16_is_fast,
    can_compile,
    train,
)
from export.squad import DataError, Question, SquadFile

RECORD = "training.json"  # marks a folder as output of this stage
HELD_OUT = "held-out.json"  # the questions of --hold-out, for calibration
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True)
class Options:
    """The command-line options; see `python -m export.finetune --help`."""

    base: str
    train: list[Source]
    output: Path
    epochs: int
    max_steps: int | None
    batch_size: int
    learning_rate: float
    warmup_ratio: float
    max_seq_length: int
    doc_stride: int
    seed: int
    dropout: float
    activation: str | None
    train_embeddings: bool
    teacher: str | None
    teacher_weight: float
    temperature: float
    hide_fraction: float
    no_answer_fraction: float
    hold_out: list[str]
    schedule: str
    average_with_base: bool
    mimic: str | None
    checkpoint_minutes: float
    restart: bool
    device: str
    precision: str
    no_compile: bool


def finetune(options: Options) -> None:
    """Train and save; resumes an interrupted run of the same command.

    Raises DataError or FinetuneError, each with one sentence for the user.
    """
    set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers'; a new head is no news
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers'
    files, held_out = read_all(options.train, options.hold_out, options.seed)
    report(files)
    if not any(question.trainable for file in files for question in file.questions):
        raise DataError("The training files hold no usable question: every record is bad or there are none.")
    base = find_base(options.base)
    teacher = find_base(options.teacher) if options.teacher else None
    mimicked = find_base(options.mimic) if options.mimic else None
    arguments = _arguments(options, base, teacher, mimicked)
    if _finished(options, arguments):
        told = f"{options.output} was already trained by this command; --restart trains it anew."
        print(told, file=sys.stderr)
        return
    execution = _execution(options)
    tokenizer = load_tokenizer(base)
    torch.manual_seed(options.seed)  # the new head
    model = load_model(base, dropout=options.dropout, activation=options.activation, eager=execution.compile)
    if options.average_with_base and not has_answer_head(base):
        raise FinetuneError(
            f"{base.id} has no question-answering head to average with: leave --average-with-base out."
        )
    if options.average_with_base and options.activation:
        raise FinetuneError(
            "Weights for different activations have no mean: leave --average-with-base or --activation out."
        )
    if teacher and mimicked:
        raise FinetuneError("A model that is mimicked is the teacher too: leave --teacher or --mimic out.")
    example = load_model(mimicked, eager=execution.compile) if mimicked else None
    if example is not None:
        check_shapes(model, example)
    if options.max_seq_length > (limit := token_limit(tokenizer, model)):
        raise FinetuneError(f"{base.id} takes at most {limit} tokens: pass --max-seq-length {limit} or less.")
    check_room(tokenizer, options.max_seq_length, options.doc_stride)
    examples = [
        example
        for number, file in enumerate(files)
        for example in build_examples(file, options.no_answer_fraction, f"{options.seed}/{number}")
    ]
    features = list(build_features(examples, tokenizer, options.max_seq_length, options.doc_stride))
    if not features:
        raise DataError(f"The tokenizer of {base.id} finds no answer in any of the training files.")
    counts = _counts(files, examples, features)
    print(", ".join(f"{name.replace('_', ' ')}: {n}" for name, n in counts.items()), file=sys.stderr)
    recipe = Recipe(
        options.epochs,
        options.batch_size,
        options.learning_rate,
        options.warmup_ratio,
        options.seed,
        options.train_embeddings,
        options.teacher_weight,
        options.temperature,
        options.hide_fraction,
        options.max_steps,
        options.schedule,
    )
    vocabulary = Vocabulary(tokenizer.pad_token_id, tokenizer.mask_token_id, tuple(tokenizer.all_special_ids))
    if options.hide_fraction and vocabulary.mask_id is None:
        raise FinetuneError(f"{base.id} has no mask token: leave --hide-fraction out.")
    takes_types = "token_type_ids" in tokenizer.model_input_names
    with Checkpoint(options.output) as checkpoint:
        checkpoint.begin(arguments, options.restart)
        soft = _teach(features, teacher, options, execution, checkpoint)
        outcome = train(
            model, features, soft, vocabulary, takes_types, recipe, execution, checkpoint, example
        )
        if options.average_with_base:
            average(model, load_model(base))
        record = _record(arguments, counts, execution, outcome)
        save(options.output, model, tokenizer, record, held_out)
        checkpoint.remove()
    print(f"saved {options.output}", file=sys.stderr)


def report(files: list[SquadFile]) -> None:
    """Report the data and the first invalid records, before training."""
    for file in files:
        print(f"{file.path}: {len(file.questions)} questions, {file.bad_count} bad records", file=sys.stderr)
        for bad in file.first_bad:
            print(f"  skipped {bad.id}: {bad.reason}", file=sys.stderr)
        if file.bad_count > len(file.first_bad):
            print(f"  and {file.bad_count - len(file.first_bad)} more", file=sys.stderr)


def _arguments(options: Options, base: Base, teacher: Base | None, mimicked: Base | None) -> dict[str, Any]:
    """Everything that determines the result; files by hash, since their paths may change."""
    recipe = asdict(options)
    for name in ("output", "checkpoint_minutes", "restart", "device", "precision", "no_compile"):
        del recipe[name]
    recipe["base"] = identity(base)
    recipe["teacher"] = identity(teacher) if teacher else None
    recipe["mimic"] = identity(mimicked) if mimicked else None
    recipe["train"] = [
        {
            "name": source.path.name,
            "sha256": hashlib.sha256(source.path.read_bytes()).hexdigest(),
            "share": source.share,
        }
        for source in options.train
    ]
    return recipe


def identity(base: Base) -> dict[str, str | None]:
    """The identity of a model, independent of its path."""
    return {"id": base.id, "version": base.version, "weights_sha256": base.weights_sha256}


def _finished(options: Options, arguments: dict[str, Any]) -> bool:
    """Whether the output is complete; raises FinetuneError if it is another folder."""
    output = options.output
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / RECORD).is_file():
        raise FinetuneError(f"{output} exists and is no output of this command: choose another --output.")
    if options.restart:
        return False
    if json.loads((output / RECORD).read_text())["arguments"] == json.loads(json.dumps(arguments)):
        return True
    if output.with_name(output.name + ".checkpoint").exists():
        return False  # an interrupted run with --restart
    raise FinetuneError(
        f"{output} was trained with other arguments: choose another --output, or pass --restart."
    )


def _execution(options: Options) -> Execution:
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise FinetuneError(f"The device {name} cannot be used here: pass --device cpu or auto.") from error
    bf16 = options.precision == "bf16" or (options.precision == "auto" and bf16_is_fast(device))
    compiled = not options.no_compile and can_compile(device)
    print(
        f"training on {device} in {'bf16' if bf16 else 'fp32'}, "
        f"{'compiled (the first steps take minutes)' if compiled else 'not compiled'}",
        file=sys.stderr,
    )
    return Execution(device, bf16, compiled, options.checkpoint_minutes)


def _teach(
    features: list[Feature],
    teacher: Base | None,
    options: Options,
    execution: Execution,
    checkpoint: Checkpoint,
) -> list[Soft | None] | None:
    if teacher is None:
        return None
    tokenizer, model = load_tokenizer(teacher), load_model(teacher)
    limit = token_limit(tokenizer, model)
    check_room(tokenizer, limit, 0)
    ready = Teacher(
        model.to(execution.device), tokenizer, limit, options.temperature, execution.device, execution.bf16
    )
    return teach(features, ready, checkpoint.folder)


def _counts(files: list[SquadFile], examples: list[Example], features: list[Feature]) -> dict[str, int]:
    return {
        "questions": sum(len(file.questions) for file in files),
        "bad_records": sum(file.bad_count for file in files),
        "examples": len(examples),
        "examples_without_answer": sum(not example.answers for example in examples),
        "windows": len(features),
        "windows_without_answer": sum(feature.starts == (feature.cls_at,) for feature in features),
    }


def _record(
    arguments: dict[str, Any], counts: dict[str, int], execution: Execution, outcome: Outcome
) -> dict[str, Any]:
    return {
        "arguments": arguments,
        "counts": counts,
        "steps": outcome.steps,
        "final_loss": round(outcome.loss, 4),
        "device": execution.device.type,
        "precision": "bf16" if execution.bf16 else "fp32",
        "compiled": execution.compile,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def save(
    output: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    record: dict[str, Any],
    held_out: Sequence[Question],
) -> None:
    """Write the Hugging Face folder atomically: to a temporary folder that is then renamed."""
    partial, old = (output.with_name(output.name + suffix) for suffix in (".partial", ".old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.cpu().save_pretrained(partial, safe_serialization=True)
    tokenizer.backend_tokenizer.no_truncation()  # reset the settings of the last call
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(partial)
    (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if held_out:
        write_squad(partial / HELD_OUT, held_out)
    if output.exists():
        output.replace(old)
    partial.replace(output)
    shutil.rmtree(old, ignore_errors=True)
