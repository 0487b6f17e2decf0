"""The full-precision student as a session: the baseline every program is measured against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..distill.methods import methods
from ..distill.student import Student
from ..runtime.backends.base import Array, Encoded


class EagerSession:
    """Both methods in PyTorch, float32."""

    def __init__(self, student: Student) -> None:
        modules = methods(student)
        self._encode, self._refine = modules["encode"], modules["refine"]

    def own(self, array: Array) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array))

    @torch.no_grad()
    def encode(self, image: Array) -> Encoded:
        *features, tokens, assessment = self._encode(self.own(image))
        return Encoded.of(features, tokens, assessment.numpy())

    @torch.no_grad()
    def refine(self, current: Array, original: Encoded, estimate: Encoded, gates: Array) -> tuple[Array, float]:
        values = (self.own(current), *original.features, *estimate.features[1:], estimate.tokens, self.own(gates))
        restored, quality = self._refine(*values)
        return restored.numpy(), float(quality)
