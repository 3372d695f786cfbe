"""Owns training with the rounding of an int8 graph; knows no loss and no ONNX."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

_LEVELS = 255  # of unsigned 8 bits: activations, over the range of one window
_LARGEST = 64  # weights keep to 7 bits, which is what portable artifacts are given


class RoundedLinear(nn.Linear):
    """A linear layer that sees its input and its weights as a dynamically quantized product does."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(..., inner) to (..., outer)."""
        return functional.linear(round_activations(values), round_weights(self.weight), self.bias)


def round_linear(model: Any) -> None:
    """Make every linear layer of `model` round, in place; its weights and their names stay.

    Weights learnt so answer the same once they are integers (Jacob et al. 2018).
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = RoundedLinear


def round_activations(values: torch.Tensor) -> torch.Tensor:
    """`values` (B, ...) on 256 steps between their extremes and 0, for each of the B windows.

    That is ONNX's DynamicQuantizeLinear, of one window per run. The gradient passes as if nothing
    were rounded (Bengio et al. 2013).
    """
    exact = values.detach().float()
    inner = tuple(range(1, exact.ndim))
    low = exact.amin(inner, keepdim=True).clamp(max=0)
    high = exact.amax(inner, keepdim=True).clamp(min=0)
    step = ((high - low) / _LEVELS).clamp(min=1e-12)
    zero = torch.round(-low / step)
    rounded = ((torch.round(exact / step) + zero).clamp(0, _LEVELS) - zero) * step
    return values + (rounded - exact).to(values.dtype)


def round_weights(weights: torch.Tensor) -> torch.Tensor:
    """`weights` (outer, inner) on symmetric steps of each output; the gradient passes."""
    exact = weights.detach()
    step = (exact.abs().amax(1, keepdim=True) / _LARGEST).clamp(min=1e-12)
    return weights + (torch.round(exact / step) * step - exact)
