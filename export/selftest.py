"""What a bundle brings for a device to test itself: one real trajectory's tile, and every program's answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file
from torch import Tensor

from ..runtime.backends import Session
from ..runtime.files import replace
from ..runtime.selftest import Inputs, answer
from .agreement import eight_bits
from .context import Context


class Tolerance(NamedTuple):
    """How far another processor may be from the answer: float differs in its last digits, int8 in single codes."""

    least_psnr: float
    quality: float


TOLERANCES = {"fp32": Tolerance(80.0, 1e-3), "fp16": Tolerance(50.0, 1e-2), "int8": Tolerance(40.0, 2e-2)}
TOLERANCES["w8a8"] = TOLERANCES["int8"]


def inputs(context: Context) -> Inputs:
    """The first trajectory's picture and its second iterate (as 8-bit pictures), and the gates routed there."""
    pictures, rows = context.samples["encode"], context.samples["refine"]
    second = min(1, len(rows) - 1)
    return Inputs(_stored(pictures[0][0]), _stored(rows[second][0]), rows[second][-1].numpy())


def _stored(picture: Tensor) -> np.ndarray:
    return eight_bits(picture.clamp(0, 1)).numpy()


def write_inputs(given: Inputs, path: Path) -> None:
    """Pictures as uint8, gates as float32."""
    pictures = {name: np.round(getattr(given, name) * 255).astype(np.uint8) for name in ("image", "current")}
    gates = np.ascontiguousarray(given.gates, np.float32)
    replace(path, lambda beside: save_file(pictures | {"gates": gates}, beside))


def write_expected(session: Session, given: Inputs, methods: Sequence[str], path: Path) -> None:
    """A program's answer: pictures as uint16, quality and assessment as float32."""
    restored, quality, assessment = answer(session, given, methods)
    tensors = {
        "restored": np.round(np.clip(restored, 0, 1) * 65535).astype(np.uint16),
        "quality": quality,
        "assessment": assessment,
    }
    replace(path, lambda beside: save_file(tensors, beside))
