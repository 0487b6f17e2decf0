"""Constants and functions that tests share; fixtures are in conftest.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from burnish.distill.distillation import own_gates
from burnish.distill.weights import Trained
from burnish.export.targets import TARGETS, select
from numpy.typing import NDArray
from torch import Tensor

PHOTOS = Path(__file__).parents[1] / "recipes" / "photos"
TILE = 64
# What the bundle of the tests holds: all that is written unasked, and int8 ONNX.
BUNDLED = [*select(None), TARGETS["onnx-int8"]]


def stack(pictures: list[NDArray[np.float32]]) -> Tensor:
    """Pictures H×W×3 of one size as a batch."""
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def refine(trained: Trained, pictures: Tensor, iterations: int) -> list[Tensor]:
    """What a student makes of a batch, iteration by iteration, routed as in use."""
    student = trained.student.eval()
    original = student.encode(pictures)
    results: list[Tensor] = []
    for _ in range(iterations):
        current = results[-1] if results else pictures
        estimate = student.encode(current)
        gates = own_gates(trained.routing, estimate.assessment, student.config.rank)
        results.append(student.refine(current, original, estimate, gates)[0].clamp(0, 1))
    return results
