"""Owns the source of a model, a local folder or the hub, and its validation; knows no ONNX."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from export.errors import ExportError

# Weights as safetensors only: the older pickle files can run code when they are read.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bpe.codes"]
_REMOTE_CODE = ["*.py"]
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# Position fields of transformers 5, which transformers 4 has as rope_theta and rope_scaling.
_ROPE_KNOWN: tuple[Any, ...] = (None, {}, {"rope_type": "default", "rope_theta": 10000.0})


@dataclass(frozen=True, slots=True)
class Source:
    """A local Hugging Face model folder; `commit` is None if it does not come from the hub."""

    id: str
    commit: str | None
    folder: Path
    config: dict[str, Any]
    trust_remote_code: bool

    @property
    def architecture(self) -> str:
        return str(self.config["model_type"])


def resolve(model: str, revision: str | None, trust_remote_code: bool) -> Source:
    """Find `model`, a folder or a hub id; downloads it if necessary.

    The usual Hugging Face variables set token, cache and offline mode. Raises ExportError if the model is not
    available, or is not a supported question-answering model.
    """
    local = Path(model)
    if local.is_dir():
        if revision is not None:
            raise ExportError(f"--revision is for hub models and {model} is a local folder: leave it out.")
        folder, commit, name = local, None, local.resolve().name
    else:
        folder = _fetch(model, revision, trust_remote_code)
        # The hub's cache has a folder per commit.
        commit, name = folder.name, model
    return Source(name, commit, folder, _config(model, folder, trust_remote_code), trust_remote_code)


def _fetch(model: str, revision: str | None, trust_remote_code: bool) -> Path:
    patterns = _FILES + (_REMOTE_CODE if trust_remote_code else [])
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise ExportError(
            f"{model} is neither a folder here nor a hub id like owner/name: check the spelling."
        ) from error
    except GatedRepoError as error:
        raise ExportError(
            f"{model} is a gated model: accept its terms on the hub and set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ExportError(f"{model} has no revision {revision} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ExportError(
            f"The hub has no model {model}, or it is private: check the spelling, or set HF_TOKEN."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ExportError(
            f"{model} cannot be fetched: the hub is out of reach and the cache does not hold it."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ExportError(f"{model} cannot be fetched from the hub ({type(error).__name__}).") from error


def _config(model: str, folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """Read and validate config.json."""
    config = _read_json(
        folder / "config.json", f"{model} has no config.json, so it is not a Hugging Face model."
    )
    architectures = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith("ForQuestionAnswering") for name in architectures):
        raise ExportError(
            f"{model} is a {' '.join(architectures) or 'model without a head'}, not a "
            "...ForQuestionAnswering: its answer head would be random, fine-tune it first "
            "(python -m export.finetune)."
        )
    if not isinstance(config.get("model_type"), str):
        raise ExportError(f"The config.json of {model} names no model_type, so its kind is unknown.")
    if config.get("auto_map") and not trust_remote_code:
        raise ExportError(
            f"{model} brings code of its own, which is not run unasked: read it, then give "
            "--trust-remote-code."
        )
    outputs = config.get("num_labels") or len(config.get("id2label") or "no")  # transformers' default is 2
    if outputs != 2:
        raise ExportError(
            f"The head of {model} has {outputs} outputs for each token where an answer has two, its start "
            "and its end: this is no extractive question-answering model, whatever its class is called."
        )
    if config.get("quantization_config"):
        raise ExportError(
            f"The weights of {model} are quantized already, and int8 is made from float weights: name the "
            "model that it was made from."
        )
    if config.get("rope_parameters") not in _ROPE_KNOWN:
        raise ExportError(
            f"{model} was saved by transformers 5 with rope_parameters of its own, which transformers "
            f"{transformers.__version__}, the one that exports, does not read: its answers would be wrong."
        )
    _check_files(model, folder)
    return config


def _check_files(model: str, folder: Path) -> None:
    """Raises ExportError if safetensors weights are missing or incomplete."""
    if (folder / _WEIGHTS).is_file():
        return
    index = folder / _INDEX
    if not index.is_file():
        raise ExportError(
            f"{model} has no safetensors weights, and other formats can run code when read: "
            "save it with save_pretrained(..., safe_serialization=True)."
        )
    places = _read_json(index, "").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ExportError(f"{_INDEX} of {model} does not say which file holds which weights.")
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise ExportError(f"{_INDEX} of {model} names a file outside of the folder: {name!r}.")
        if not (folder / name).is_file():
            raise ExportError(f"{model} lacks {name}, which {_INDEX} names: fetch it again.")


def _read_json(file: Path, missing: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(missing) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{file} cannot be read as JSON.") from error
    if not isinstance(content, dict):
        raise ExportError(f"{file} is no JSON object.")
    return content
