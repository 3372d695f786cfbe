"""Owns the training loop: loss, optimizer, schedule, resumption; knows no file of the user."""

import math
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export.finetune import FinetuneError
from export.finetune.batches import Batch, Vocabulary, collate, hide, plan_epoch
from export.finetune.checkpoint import Checkpoint
from export.finetune.examples import Feature
from export.finetune.mimic import follow, layer_loss
from export.finetune.progress import Progress
from export.finetune.teacher import Soft

MASKED = -1e4  # a masked logit, finite so that 0 x MASKED is 0 in the loss
LEAST_LINK = 0.5  # minimum total probability of the candidates to select one as the target
SCHEDULES = ("linear", "cosine", "constant")
AVERAGING = 0.99  # decay of the moving average of the loss


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters; see the command line for their defaults."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_ratio: float
    seed: int
    train_embeddings: bool
    teacher_weight: float
    temperature: float
    hide_fraction: float = 0.0
    max_steps: int | None = None  # an earlier end
    schedule: str = "linear"  # of the learning rate after warm-up: one of SCHEDULES
    weight_decay: float = 0.01
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class Execution:
    """Device and performance options; they do not change the result."""

    device: torch.device
    bf16: bool
    compile: bool
    checkpoint_minutes: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a training."""

    steps: int
    loss: float  # moving average at the end


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions; without them it is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works on this CPU: it needs a C++ compiler and Python's headers."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return device.type == "cpu" and shutil.which("g++") is not None and headers.exists()


def train(
    model: Any,
    features: Sequence[Feature],
    soft: Sequence[Soft | None] | None,
    vocabulary: Vocabulary,
    takes_types: bool,
    recipe: Recipe,
    execution: Execution,
    checkpoint: Checkpoint,
    example: Any = None,
) -> Outcome:
    """Train `model` in place; resumes from the checkpoint if there is one.

    `example` is a model of the same shape for layer-wise distillation.

    All randomness is seeded with (seed, step) or (seed, epoch), so that a resumed run has the result of an
    uninterrupted one: bit for bit on the same machine without torch.compile, else up to rounding differences
    between compiled kernels. Raises FinetuneError if the loss is NaN or infinite.
    """
    model.get_input_embeddings().requires_grad_(recipe.train_embeddings)
    model.to(execution.device).train()
    optimizer = _optimizer(model, recipe)
    steps_per_epoch = math.ceil(len(features) / recipe.batch_size)
    total = min(steps_per_epoch * recipe.epochs, recipe.max_steps or sys.maxsize)
    step, average = 0, 0.0
    if (state := checkpoint.load()) is not None:
        model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        step, average = state["step"], state["loss"]
    if example is not None:
        example.to(execution.device).eval()
    forward, led = (
        torch.compile(one, dynamic=True) if one is not None and execution.compile else one
        for one in (model, example)
    )
    progress = Progress(total, step)
    saved = time.monotonic()
    for batch in islice(_batches(features, soft, vocabulary, recipe, step), total - step):
        rate = recipe.learning_rate * _schedule(step, total, recipe.warmup_ratio, recipe.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout
        value = _step(forward, led, model, optimizer, batch, takes_types, recipe, execution)
        if not math.isfinite(value):
            raise FinetuneError(
                f"At step {step} the loss is no longer a number: "
                "pass a smaller --learning-rate, and --restart."
            )
        # Bias correction, as in Adam.
        weight = max(1 - AVERAGING, 1 / (step + 1))
        average += weight * (value - average)
        step += 1
        progress.update(len(batch.ids), average, rate)
        if time.monotonic() - saved >= 60 * execution.checkpoint_minutes or step == total:
            weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
            checkpoint.save(
                {"weights": weights, "optimizer": optimizer.state_dict(), "step": step, "loss": average}
            )
            saved = time.monotonic()
    progress.close()
    return Outcome(total, average)


def average(model: Any, other: Any, share: float = 0.5) -> None:
    """Interpolate `model`'s weights towards those of `other`, of the same shape, by `share`, in place.

    The average of two models from one training is often better than either (Izmailov et al. 2018; Wortsman
    et al. 2022).
    """
    theirs = other.state_dict()
    for name, weights in model.state_dict().items():
        if weights.is_floating_point():
            weights.copy_((1 - share) * weights + share * theirs[name].to(weights.device))


def _optimizer(model: Any, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW without weight decay for biases and LayerNorm (Devlin et al. 2019)."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in trained if w.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _schedule(step: int, total: int, warmup_ratio: float, kind: str) -> float:
    """Learning rate factor: linear warm-up, then linear decay to 0, or no decay for "constant".

    Runs at a constant rate can be followed by others on more data, the last one with decay.
    """
    warmup = math.ceil(total * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    left = (total - step) / max(total - warmup, 1)
    if kind == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return left if kind == "linear" else 1.0


def _batches(
    features: Sequence[Feature],
    soft: Sequence[Soft | None] | None,
    vocabulary: Vocabulary,
    recipe: Recipe,
    done: int,
) -> Iterator[Batch]:
    """The batches of all epochs after the first `done`."""
    lengths = [len(feature.ids) for feature in features]
    for epoch in range(recipe.epochs):
        plan = plan_epoch(lengths, recipe.batch_size, recipe.seed, epoch)
        for number in range(max(done - epoch * len(plan), 0), len(plan)):
            rows = plan[number]
            batch = collate([features[i] for i in rows], soft and [soft[i] for i in rows], vocabulary.pad_id)
            if recipe.hide_fraction:
                rng = np.random.default_rng((recipe.seed, epoch, number))
                hide(batch, vocabulary, recipe.hide_fraction, rng)
            yield batch


def _step(
    forward: Any,
    example: Any,
    model: Any,
    optimizer: torch.optim.AdamW,
    batch: Batch,
    takes_types: bool,
    recipe: Recipe,
    execution: Execution,
) -> float:
    device = execution.device
    inputs: dict[str, Any] = {"input_ids": batch.ids.to(device), "attention_mask": batch.mask.to(device)}
    if takes_types:
        inputs["token_type_ids"] = batch.types.to(device)
    if example is not None:
        inputs["output_hidden_states"] = True
    with torch.autocast(device.type, torch.bfloat16, enabled=execution.bf16):
        output = forward(**inputs)
        if example is not None:
            with torch.no_grad():
                wanted = example(**inputs)
            batch = follow(batch, wanted, recipe.temperature)
    logits = torch.stack((output.start_logits, output.end_logits), -1).float()
    loss = span_loss(logits, batch, recipe.teacher_weight, recipe.temperature)
    if example is not None:
        loss = loss + layer_loss(output, wanted, inputs["attention_mask"])
    loss.backward()  # type: ignore[no-untyped-call]  # torch's
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def linked_targets(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, T, 2) target probabilities, on the device of `logits`.

    If one of several spans is correct, the target is the most probable one under the current model: hard
    expectation-maximisation (Min et al. 2019, "A Discrete Hard EM Approach for Weakly Supervised Question
    Answering"). A window in which no span has LEAST_LINK of their total probability is excluded from the
    loss. With soft targets, proportional to the probabilities, F1 was 10 points lower: the model learnt to
    find any candidate.
    """
    targets = batch.targets.to(logits.device)
    if batch.spans is None:
        return targets
    spans = batch.spans.to(logits.device)  # (B, C, 2)
    real = spans[:, :, 0] >= 0  # (B, C)
    places = spans.clamp(min=0)
    score = logits.gather(1, places).sum(dim=-1).masked_fill(~real, MASKED)  # (B, C)
    share, likeliest = score.softmax(dim=1).max(dim=1)  # (B,) both
    chosen = places[torch.arange(len(places), device=places.device), likeliest].unsqueeze(1)  # (B, 1, 2)
    linked = torch.zeros_like(targets).scatter_(1, chosen, 1.0)
    linked *= (share >= LEAST_LINK)[:, None, None]
    return torch.where(real.any(dim=1)[:, None, None], linked, targets)


def span_loss(logits: torch.Tensor, batch: Batch, teacher_weight: float, temperature: float) -> torch.Tensor:
    """Mean loss over windows and over start and end; `logits` is (B, T, 2) float32.

    Cross-entropy against the annotated answers or, with a teacher, (1 - w) CE + w T^2 KL(teacher || student)
    at temperature T (Hinton et al. 2015). As in inference, the softmax is over context tokens and CLS only.
    """
    device = logits.device
    logits = logits.masked_fill(~batch.allowed.to(device).unsqueeze(-1), MASKED)
    hard = (
        -(linked_targets(logits.detach(), batch) * logits.log_softmax(dim=1)).sum(dim=1).mean(dim=1)
    )  # (B,)
    if batch.soft is None or batch.taught is None:
        return hard.mean()
    soft = batch.soft.to(device)
    divergence = torch.xlogy(soft, soft) - soft * (logits / temperature).log_softmax(dim=1)
    distilled = temperature**2 * divergence.sum(dim=1).mean(dim=1)
    weight = teacher_weight * batch.taught.to(
        device
    )  # windows without teacher probabilities use cross-entropy only
    return ((1 - weight) * hard + weight * distilled).mean()
