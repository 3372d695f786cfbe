"""Owns the way from a Hugging Face folder to a plain fp32 graph; knows no fusion, no int8."""

import shutil
from pathlib import Path

from optimum.exporters.onnx import main_export
from optimum.exporters.tasks import TasksManager
from transformers import AutoModelForQuestionAnswering

from export import storage
from export.errors import ExportError, reason
from export.source import Source


def supported() -> list[str]:
    """Model types optimum can export for question answering."""
    types = TasksManager._SUPPORTED_MODEL_TYPE
    return sorted(
        name for name, exporters in types.items() if "question-answering" in exporters.get("onnx", {})
    )


def convert(source: Source, output: Path) -> None:
    """Write the fp32 graph.

    Raises ExportError for an architecture without an exporter and for weights that do not fit.
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
    except Exception as error:  # each architecture fails in its own ways
        raise ExportError(f"{source.id} cannot be converted to ONNX: {reason(error)}.") from error
    storage.save(storage.load(folder / "model.onnx"), output)
    shutil.rmtree(folder)  # optimum names the weights' file otherwise, and adds files of its own


def _check_weights(source: Source) -> None:
    """Raises ExportError where weights are missing, which transformers would fill with noise."""
    try:
        _, found = AutoModelForQuestionAnswering.from_pretrained(
            source.folder,
            trust_remote_code=source.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # files of any kind, read by several libraries
        raise ExportError(f"The weights of {source.id} cannot be read: {reason(error)}.") from error
    if missing := sorted(found["missing_keys"]):
        raise ExportError(
            f"The weights of {source.id} lack {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}, which would be random: fine-tune it first."
        )


def opset(file: Path) -> int:
    """The graph's version of the standard operators."""
    model = storage.load(file, weights=False)
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def inputs(file: Path) -> tuple[str, ...]:
    """Names the graph takes."""
    return tuple(value.name for value in storage.load(file, weights=False).graph.input)
