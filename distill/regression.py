"""Logistic regression on what a head sees, and the smooth minimisation behind it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

DECAY = 1e-3  # of the squared weights, for standardised inputs


def logistic_regression(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (C,) and bias () of the logit of labels (N,) in {0, 1} from inputs (N, C)."""
    centre, spread = inputs.mean(0), inputs.std(0) + 1e-3
    standard = (inputs - centre) / spread
    weight, bias = torch.zeros(inputs.shape[1]), torch.zeros(())

    def loss() -> Tensor:
        penalty = weight.square().sum() + bias.square()
        return F.binary_cross_entropy_with_logits(standard @ weight + bias, labels) + DECAY * penalty

    minimise(loss, weight, bias)
    weight = weight / spread
    return weight, bias - weight @ centre


@torch.enable_grad()
def minimise(loss: Callable[[], Tensor], *parameters: Tensor) -> None:
    """Change parameters in place so that a smooth loss of them is least."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.LBFGS(parameters, max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  any closure that returns a number
    for parameter in parameters:
        parameter.requires_grad_(False)
