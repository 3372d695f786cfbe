"""Owns layer-wise distillation from a model of the same shape; knows no optimizer."""

from dataclasses import replace
from typing import Any

import torch

from export.finetune import FinetuneError
from export.finetune.batches import Batch

_WEIGHT = 10.0  # of the relative layer error: at an error of 0.1 it is on par with the answer loss


def check_shapes(student: Any, example: Any) -> None:
    """Raise FinetuneError if the two models have no layers in common."""
    for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
        ours, theirs = getattr(student.config, name), getattr(example.config, name)
        if ours != theirs:
            raise FinetuneError(
                f"Only a model of the same shape can be mimicked: {name} {theirs} is not {ours}."
            )


def follow(batch: Batch, example: Any, temperature: float) -> Batch:
    """`batch` with the example's output probabilities as those of the teacher."""
    logits = torch.stack((example.start_logits, example.end_logits), -1).float()
    allowed = batch.allowed.to(logits.device).unsqueeze(-1)
    soft = (logits / temperature).masked_fill(~allowed, -torch.inf).softmax(dim=1)  # (B, T, 2)
    return replace(batch, soft=soft, taught=torch.ones(len(soft), dtype=torch.bool))


def layer_loss(student: Any, example: Any, mask: torch.Tensor) -> torch.Tensor:
    """Distance of the student's hidden states from the example's.

    Squared error relative to the layer's variance, averaged over real tokens and layers (Jiao et al. 2020).
    """
    real = mask.to(torch.float32).unsqueeze(-1)  # (B, T, 1)
    errors = []
    for ours, theirs in zip(student.hidden_states[1:], example.hidden_states[1:], strict=True):
        wanted = theirs.float()  # (B, T, hidden)
        size = real.sum() * wanted.shape[-1]
        mean = (wanted * real).sum() / size
        variance = ((wanted - mean).square() * real).sum() / size
        errors.append(((ours.float() - wanted).square() * real).sum() / size / variance)
    return _WEIGHT * torch.stack(errors).mean()
