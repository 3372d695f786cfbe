"""Owns the teacher's probabilities, mapped to the student's tokens and cached on disk; knows no loss."""

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
CHUNK = 1024  # windows per cache file: the maximum loss of a killed run
BATCH = 32  # windows per batch of the teacher


@dataclass(frozen=True, slots=True)
class Teacher:
    """A loaded fine-tuned model and its tokenizer."""

    model: Any  # transformers leaves it untyped; on `device`
    tokenizer: PreTrainedTokenizerFast
    max_seq_length: int  # its maximum, special tokens included
    temperature: float
    device: torch.device
    bf16: bool


def teach(features: Sequence[Feature], teacher: Teacher, cache: Path) -> list[Soft | None]:
    """The teacher's softened probabilities for every window, computed once and cached in `cache`.

    None for windows without a common token boundary of teacher and student.
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
    """Run the teacher on the text of each student window; zeros if nothing could be mapped."""
    tokenizer = teacher.tokenizer
    result: list[Soft] = [np.zeros((len(feature.ids), 2), dtype=np.float16) for feature in features]
    order = sorted(range(len(features)), key=lambda i: len(features[i].ids))
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        pieces = [_piece(features[i]) for i in rows]
        # If the text exceeds the teacher's maximum, only its first window is mapped.
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
    """The context of the window and its offset in the whole context, in code points."""
    inside = feature.offsets[feature.offsets[:, 0] >= 0]
    if not len(inside):
        return "", 0
    return feature.example.context[inside[0, 0] : inside[-1, 1]], int(inside[0, 0])


def map_probabilities(
    logits: NDArray[np.float32], offsets: NDArray[np.int32], cls_at: int, feature: Feature
) -> Soft:
    """The teacher's softmax over its context tokens and CLS, on the student's tokens.

    `logits`, already divided by the temperature, and `offsets` are (teacher tokens, 2). A start maps to the
    student token with the same start offset, an end to that with the same end offset, CLS to CLS.
    Probabilities without a counterpart are dropped and the others renormalised; all zeros if a column has
    none left.
    """
    mapped = np.zeros((len(feature.ids), 2), dtype=np.float32)
    allowed = offsets[:, 0] >= 0
    allowed[cls_at] = True
    for side in (0, 1):
        column = np.where(allowed, logits[:, side], -np.inf)
        column = np.exp(column - column.max())
        # Byte-level tokenizers can split a character into several tokens with equal offsets: a start maps
        # to the first of them, an end to the last.
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
