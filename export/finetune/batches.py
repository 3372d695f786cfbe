"""Owns the order and batching of training windows; knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.finetune.examples import Feature
from export.finetune.teacher import Soft

POOL = 50  # batches per length-sorted bucket: little padding, still a random order
LENGTH_STEP = 32  # tokens; few distinct lengths limit recompilations and allocations


@dataclass(frozen=True, slots=True)
class Batch:
    """B padded windows of T tokens. Teacher fields are None without a teacher."""

    ids: torch.Tensor  # (B, T) int64
    mask: torch.Tensor  # (B, T) int64, 1 for a real token
    types: torch.Tensor  # (B, T) int64
    allowed: torch.Tensor  # (B, T) bool, context tokens and CLS: possible answer positions
    targets: torch.Tensor  # (B, T, 2) float32, start and end, each summing to 1 over T
    soft: torch.Tensor | None  # (B, T, 2) float32, the teacher's
    taught: torch.Tensor | None  # (B,) bool, whether the teacher's probabilities are known
    # (B, C, 2) int64, start and end of up to C candidate answers, one of them correct; -1 pads a row, or
    # all of it if all answers are correct. None if this holds for every window.
    spans: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Special token ids; `mask_id` is None if the tokenizer has no such token."""

    pad_id: int
    mask_id: int | None
    special_ids: tuple[int, ...]


def hide(batch: Batch, vocabulary: Vocabulary, fraction: float, rng: np.random.Generator) -> None:
    """Replace a random `fraction` of the word tokens with MASK, in place.

    Regularization against memorizing the training texts, different in every epoch; unlike dropout, it is free
    on a CPU.
    """
    ids = batch.ids.numpy()
    hidden = (rng.random(ids.shape) < fraction) & ~np.isin(ids, vocabulary.special_ids)
    ids[hidden] = vocabulary.mask_id


def plan_epoch(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Window indices per batch, with windows of similar length in a batch.

    The order depends only on (seed, epoch), so that a run can resume at a step number.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    length = np.asarray(lengths)
    batches: list[NDArray[np.int64]] = []
    for first in range(0, len(order), batch_size * POOL):
        pool = order[first : first + batch_size * POOL]
        pool = pool[np.argsort(length[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def collate(features: Sequence[Feature], soft: Sequence[Soft | None] | None, pad_id: int) -> Batch:
    """Pad windows on the right to the longest, rounded up to LENGTH_STEP."""
    rows = len(features)
    width = -(-max(len(feature.ids) for feature in features) // LENGTH_STEP) * LENGTH_STEP
    ids = np.full((rows, width), pad_id, dtype=np.int64)
    mask = np.zeros((rows, width), dtype=np.int64)
    types = np.zeros((rows, width), dtype=np.int64)
    allowed = np.zeros((rows, width), dtype=np.bool_)
    targets = np.zeros((rows, width, 2), dtype=np.float32)
    for row, feature in enumerate(features):
        tokens = len(feature.ids)
        ids[row, :tokens] = feature.ids
        mask[row, :tokens] = 1
        types[row, :tokens] = feature.types
        allowed[row, :tokens] = feature.offsets[:, 0] >= 0
        allowed[row, feature.cls_at] = True
        for side, places in enumerate((feature.starts, feature.ends)):
            np.add.at(targets[row, :, side], list(places), np.float32(1 / len(places)))
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(types),
        torch.from_numpy(allowed),
        torch.from_numpy(targets),
        *_collate_soft(soft, width),
        _collate_spans(features),
    )


def _collate_spans(features: Sequence[Feature]) -> torch.Tensor | None:
    """The candidate spans of windows with one correct answer among several."""
    several = [feature.example.one_of and len(feature.starts) > 1 for feature in features]
    if not any(several):
        return None
    most = max(len(feature.starts) for feature, found in zip(features, several, strict=True) if found)
    spans = np.full((len(features), most, 2), -1, dtype=np.int64)
    for row, feature in enumerate(features):
        if several[row]:
            spans[row, : len(feature.starts)] = np.stack((feature.starts, feature.ends), axis=1)
    return torch.from_numpy(spans)


def _collate_soft(
    soft: Sequence[Soft | None] | None, width: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if soft is None:
        return None, None
    rows = np.zeros((len(soft), width, 2), dtype=np.float32)
    for row, values in enumerate(soft):
        if values is not None:
            rows[row, : len(values)] = values
    return torch.from_numpy(rows), torch.tensor([values is not None for values in soft])
