"""Constants and functions that tests share; fixtures are in conftest.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from burnish.distill.distillation import iterate
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
    steps = iterate(trained.student.eval(), trained.routing, pictures, iterations)
    return [step.restored.clamp(0, 1) for step in steps]
