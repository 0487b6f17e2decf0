"""What every backend offers: a session that runs the methods of one program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..methods import REFINE

Array = NDArray[np.float32]


class Encoded(NamedTuple):
    """What `encode` says of a picture. Features are the backend's own tensors, opaque to callers; `tokens`: (1, N, C)."""

    features: tuple[Any, ...]
    tokens: Array
    quality: float
    granularity: float
    logits: tuple[float, ...]

    @classmethod
    def of(cls, features: Sequence[Any], tokens: Array, assessment: Array) -> Encoded:
        """Split an assessment (1, 2 + leaves) into quality in [0, 1], granularity and logits; tokens in single precision."""
        values = np.asarray(assessment, np.float64).reshape(-1)
        quality = float(1 / (1 + np.exp(-values[0])))
        logits = tuple(float(v) for v in values[2:])
        return cls(tuple(features), np.asarray(tokens, np.float32), quality, float(values[1]), logits)


class Session(Protocol):
    """A loaded program."""

    def encode(self, image: Array) -> Encoded:
        """`image`: float32 (1, 3, tile, tile) in [0, 1]."""
        ...

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        """Restored (1, 3, tile, tile), not clipped, and its predicted quality in [0, 1]; `gates`: (1, E·rank, 1, 1).

        `method`: refine, or a specialist's (`runtime.methods`). Raises BackendError for one that the program lacks.
        """
        ...
