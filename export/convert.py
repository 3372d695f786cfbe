"""Owns the conversion of a Hugging Face folder to a plain fp32 graph; knows no fusion and no int8."""

import shutil
from pathlib import Path

from optimum.exporters.onnx import main_export
from optimum.exporters.tasks import TasksManager
from transformers import AutoModelForQuestionAnswering

from export import storage
from export.errors import ExportError, reason
from export.source import Source


def supported() -> list[str]:
    """Model types that optimum can export for question answering."""
    types = TasksManager._SUPPORTED_MODEL_TYPE
    return sorted(
        name for name, exporters in types.items() if "question-answering" in exporters.get("onnx", {})
    )


def convert(source: Source, output: Path) -> None:
    """Write the fp32 graph.

    Raises ExportError for an unsupported architecture and for missing weights.
    """
    if source.architecture not in supported() and not source.trust_remote_code:
        raise ExportError(
            f"{source.id} is a {source.architecture} model, which cannot be exported for question "
            f"answering: the types that can are {', '.join(supported())}."
        )
    _check_weights(source)
    folder = output.with_suffix(".converted")
    try:
        main_export(
            str(source.folder),
            folder,
            task="question-answering",
            do_validation=False,  # `verify` compares with torch on real text
            trust_remote_code=source.trust_remote_code,
            local_files_only=True,
        )
    except Exception as error:  # exceptions differ by architecture
        raise ExportError(f"{source.id} cannot be converted to ONNX: {reason(error)}.") from error
    storage.save(storage.load(folder / "model.onnx"), output)
    shutil.rmtree(folder)  # optimum uses another name for the weights file, and writes further files


def _check_weights(source: Source) -> None:
    """Raises ExportError if weights are missing, which transformers would initialize at random."""
    try:
        _, found = AutoModelForQuestionAnswering.from_pretrained(
            source.folder,
            trust_remote_code=source.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # several libraries read the files
        raise ExportError(f"The weights of {source.id} cannot be read: {reason(error)}.") from error
    if missing := sorted(found["missing_keys"]):
        raise ExportError(
            f"The weights of {source.id} lack {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}, which would be random: fine-tune it first."
        )


def opset(file: Path) -> int:
    """The opset version of the graph."""
    model = storage.load(file, weights=False)
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def inputs(file: Path) -> tuple[str, ...]:
    """Names of the graph inputs."""
    return tuple(value.name for value in storage.load(file, weights=False).graph.input)
