"""Owns where a model comes from: a local folder or the hub, checked before any work; knows no ONNX."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Source:
    """A Hugging Face model folder on this disk; `commit` is None for a folder of the user's."""

    id: str
    commit: str | None
    folder: Path
    config: dict[str, Any]
    trust_remote_code: bool

    @property
    def architecture(self) -> str:
        return str(self.config["model_type"])


def resolve(model: str, revision: str | None, trust_remote_code: bool) -> Source:
    """Find `model`, a folder or a hub id, fetching it where needed.

    The hub's token, cache and offline mode come from the usual Hugging Face variables. Raises
    ExportError where it cannot be had, or is not a question-answering model this tool can read.
    """
    local = Path(model)
    if local.is_dir():
        if revision is not None:
            raise ExportError(f"--revision is for hub models and {model} is a local folder: leave it out.")
        folder, commit, name = local, None, local.resolve().name
    else:
        folder = _fetch(model, revision, trust_remote_code)
        # The hub's cache keeps each commit in a folder of its name.
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
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{model} has no config.json, so it is not a Hugging Face model.") from None
    except (OSError, ValueError) as error:
        raise ExportError(f"The config.json of {model} cannot be read as JSON.") from error
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForQuestionAnswering") for name in architectures):
        raise ExportError(
            f"{model} is a {' '.join(architectures) or 'model without a head'}, not a "
            "...ForQuestionAnswering: its answer head would be random, fine-tune it first "
            "(python -m export.finetune)."
        )
    if config.get("auto_map") and not trust_remote_code:
        raise ExportError(
            f"{model} brings code of its own, which is not run unasked: read it, then give "
            "--trust-remote-code."
        )
    if not list(folder.glob("*.safetensors")):
        raise ExportError(
            f"{model} has no safetensors weights, and other formats can run code when read: "
            "save it with save_pretrained(..., safe_serialization=True)."
        )
    return dict(config)
