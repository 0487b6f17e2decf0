"""The full-precision student as a session: the baseline every program is measured against."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch

from ..distill.methods import methods
from ..distill.student import Student
from ..runtime.backends.base import Array, Encoded
from ..runtime.methods import ENCODE, REFINE


class EagerSession:
    """All methods in PyTorch, float32, channels last: oneDNN's convolutions are then 1.5 times as fast."""

    def __init__(self, student: Student) -> None:
        # A copy: exporters do not take weights whose memory format was changed.
        self._methods = methods(deepcopy(student))
        for module in self._methods.values():
            convert: Any = module.to  # its annotations leave the memory format out
            convert(memory_format=torch.channels_last)

    def own(self, array: Array) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    @torch.no_grad()
    def encode(self, image: Array) -> Encoded:
        *features, tokens, assessment = self._methods[ENCODE](self.own(image))
        return Encoded.of(features, tokens.numpy(), assessment.numpy())

    @torch.no_grad()
    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        features = (*original.features, *estimate.features[1:])
        called = (self.own(current), *features, self.own(estimate.tokens), self.own(gates))
        restored, quality = self._methods[method](*called)
        return restored.numpy(), float(quality)
