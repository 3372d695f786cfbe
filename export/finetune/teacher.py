"""Owns the teacher's probabilities, mapped to the student's tokens and kept on disk; knows no loss."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from export.finetune.examples import Feature, context_offsets, encode_pair

Soft = NDArray[np.float16]  # (student tokens, 2) start and end probabilities; each column sums to 1
CHUNK = 1024  # windows per cached file: what a killed run loses at most
BATCH = 32  # windows per run of the teacher


@dataclass(frozen=True, slots=True)
class Teacher:
    """A fine-tuned model that stands ready, and how it is asked."""

    model: Any  # transformers leaves it untyped; on `device`
    tokenizer: PreTrainedTokenizerFast
    max_seq_length: int  # tokens it takes at most, specials included
    temperature: float
    device: torch.device
    bf16: bool


def teach(features: Sequence[Feature], teacher: Teacher, cache: Path) -> list[Soft | None]:
    """The teacher's softened probabilities for every window, computed once and cached in `cache`.

    None marks a window where no token boundary of the teacher is one of the student.
    """
    teacher.model.eval()
    known: list[Soft | None] = []
    with tqdm(total=len(features), desc="teacher", unit="window", disable=None) as bar:
        for first in range(0, len(features), CHUNK):
            chunk = features[first : first + CHUNK]
            path = cache / f"teacher-{first // CHUNK:05d}.npy"
            flat = np.load(path) if path.exists() else _cached(path, _probabilities(chunk, teacher))
            bounds = np.cumsum([len(feature.ids) for feature in chunk])[:-1]
            known += [part if part.any() else None for part in np.split(flat, bounds)]
            bar.update(len(chunk))
            if bar.disable:
                print(f"teacher: {len(known)}/{len(features)} windows", file=sys.stderr, flush=True)
    return known


def _cached(path: Path, parts: Sequence[Soft]) -> Soft:
    flat = np.concatenate(parts)
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        np.save(file, flat)
    partial.replace(path)
    return flat


def _probabilities(features: Sequence[Feature], teacher: Teacher) -> list[Soft]:
    """Run the teacher over the text of each student window; zeros where nothing could be mapped."""
    tokenizer = teacher.tokenizer
    result: list[Soft] = [np.zeros((len(feature.ids), 2), dtype=np.float16) for feature in features]
    order = sorted(range(len(features)), key=lambda i: len(features[i].ids))
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        pieces = [_piece(features[i]) for i in rows]
        # Where the teacher needs more tokens than it takes, its first window alone is mapped.
        encodings = [
            encode_pair(tokenizer, features[i].example.question, text, teacher.max_seq_length, 0)
            for i, (text, _) in zip(rows, pieces, strict=True)
        ]
        logits = _logits(encodings, teacher)
        for row, i in enumerate(rows):
            offsets = context_offsets(tokenizer, encodings[row], 0)
            offsets[offsets[:, 0] >= 0] += pieces[row][1]
            cls_at = encodings[row]["input_ids"][0].index(tokenizer.cls_token_id)
            result[i] = map_probabilities(logits[row, : len(offsets)], offsets, cls_at, features[i])
    return result


def _logits(encodings: Sequence[Any], teacher: Teacher) -> NDArray[np.float32]:
    """(windows, tokens, 2) start and end logits over the temperature, padded on the right."""
    taken = ("attention_mask", *teacher.tokenizer.model_input_names)
    columns: dict[str, list[list[int]]] = {
        name: [encoding[name][0] for encoding in encodings] for name in dict.fromkeys(taken)
    }
    inputs = teacher.tokenizer.pad(columns, padding_side="right", return_tensors="pt").to(teacher.device)
    with torch.inference_mode(), torch.autocast(teacher.device.type, torch.bfloat16, enabled=teacher.bf16):
        output = teacher.model(**inputs)
    logits = torch.stack((output.start_logits, output.end_logits), -1).float() / teacher.temperature
    result: NDArray[np.float32] = logits.cpu().numpy()
    return result


def _piece(feature: Feature) -> tuple[str, int]:
    """The context text of the window and where it starts in the whole, in code points."""
    inside = feature.offsets[feature.offsets[:, 0] >= 0]
    if not len(inside):
        return "", 0
    return feature.example.context[inside[0, 0] : inside[-1, 1]], int(inside[0, 0])


def map_probabilities(
    logits: NDArray[np.float32], offsets: NDArray[np.int32], cls_at: int, feature: Feature
) -> Soft:
    """The teacher's softmax over its context tokens and CLS, on the student's tokens.

    `logits`, over the temperature already, and `offsets` are (teacher tokens, 2). A start
    goes to the student token of the same start offset, an end to that of the same end offset, CLS
    to CLS; what finds no place is dropped and the rest renormalised. All zeros where a whole
    column finds no place.
    """
    mapped = np.zeros((len(feature.ids), 2), dtype=np.float32)
    allowed = offsets[:, 0] >= 0
    allowed[cls_at] = True
    for side in (0, 1):
        column = np.where(allowed, logits[:, side], -np.inf)
        column = np.exp(column - column.max())
        # A tokenizer may split one character into several tokens of equal offsets (bytes): a start
        # belongs to the first of them, an end to the last.
        step = -1 if side == 0 else 1
        places = {int(feature.offsets[i, side]): i for i in range(len(feature.ids))[::step]}
        places.pop(-1, None)
        for token in np.flatnonzero(allowed):
            place = feature.cls_at if token == cls_at else places.get(int(offsets[token, side]))
            if place is not None:
                mapped[place, side] += column[token]
    total = mapped.sum(axis=0)
    if not (total > 0).all():
        return np.zeros(mapped.shape, dtype=np.float16)
    soft: Soft = (mapped / total).astype(np.float16)
    return soft
