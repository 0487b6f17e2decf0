"""How near the outputs of a device are to those of another computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.bundle import Bundle
from ..runtime.errors import DeviceError
from .perf import Agreement

Tiles = list[NDArray[np.float32]]
Tensors = Mapping[str, NDArray[Any]]


def restored_tiles(samples: Tensors) -> Tiles:
    """The restored tiles of a job's samples, in order."""
    count = sum(name.endswith(".restored") for name in samples)
    return [samples[f"{index}.restored"] for index in range(count)]


def student_tiles(bundle: Bundle, samples: Tensors) -> Tiles:
    """What the full-precision student makes of the samples, in PyTorch."""
    from ..distill.weights import load_student
    from .eager import EagerSession

    session = EagerSession(load_student(bundle.file(bundle.manifest.weights)))
    tiles: Tiles = []
    for index in range(sum(name.endswith(".image") for name in samples)):
        image = samples[f"{index}.image"]
        current = samples.get(f"{index}.current", image)
        original = session.encode(image)
        tiles.append(session.refine(current, original, session.encode(current), samples[f"{index}.gates"])[0])
    return tiles


def agreement(ours: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]) -> Agreement:
    """The worst over all tiles, clipped to [0, 1] as a picture is. Raises DeviceError for outputs that are no pictures."""
    rows: list[tuple[float, float, float]] = []
    for one, other in zip(ours, others, strict=True):
        if one.shape != other.shape or not np.isfinite(one).all():
            raise DeviceError(
                f"a restored tile is of shape {one.shape} or holds NaN; expected finite values, {other.shape}"
            )
        difference = np.abs(np.clip(one, 0, 1) - np.clip(other, 0, 1)).astype(np.float64)
        error = float(np.mean(difference**2))
        psnr = 100.0 if error < 1e-10 else min(100.0, -10 * float(np.log10(error)))
        # A level apart in 8 bits, and half a float's rounding.
        rows.append((float(difference.max()), float(np.mean(difference <= 1 / 255 + 1e-6)), psnr))
    return Agreement(
        max_difference=max(row[0] for row in rows),
        within_one_level=min(row[1] for row in rows),
        psnr_db=round(min(row[2] for row in rows), 3),
    )
