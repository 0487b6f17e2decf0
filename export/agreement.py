"""How far two programs are apart on real trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.backends import Session
from ..runtime.backends.base import Array, Encoded
from ..runtime.methods import ENCODE, REFINE, specialist_method
from .context import Context


class Agreement(NamedTuple):
    """PSNR in dB between two programs' pictures, median and worst; median share of pixels that differ by 1/255 at most."""

    median: float
    worst: float
    close: float

    @classmethod
    def between(cls, pictures: list[Array], expected: list[Array]) -> Agreement:
        """Compare pictures (1, 3, H, W) pairwise."""
        differences = [np.abs(a - b) for a, b in zip(pictures, expected, strict=True)]
        decibels = [-10 * np.log10(max(float(np.mean(d**2)), 1e-10)) for d in differences]
        close = [float(np.mean(d.max(1) <= 1.0001 / 255)) for d in differences]
        return cls(float(np.median(decibels)), float(min(decibels)), float(np.median(close)))

    def __str__(self) -> str:
        return f"{self.median:.1f} dB (median; worst {self.worst:.1f})"


def restored_by(session: Session, context: Context) -> list[Array]:
    """A loaded program's pictures of all samples."""

    def encode(image: Tensor) -> Encoded:
        return session.encode(image.numpy())

    def refine(method: str, current: Tensor, original: Encoded, estimate: Encoded, gates: Tensor) -> Array:
        return session.refine(current.numpy(), original, estimate, gates.numpy(), method)[0]

    return _along_trajectories(context, encode, refine)


def restored_by_methods(given: Mapping[str, Callable[..., Any]], context: Context) -> list[Array]:
    """Pictures of all samples by methods in torch: a student's, or graphs of them."""

    def refine(
        method: str, current: Tensor, original: tuple[Tensor, ...], estimate: tuple[Tensor, ...], gates: Tensor
    ) -> Array:
        restored: Tensor = given[method](current, *original[:3], *estimate[1:4], gates)[0]
        return restored.numpy()

    with torch.no_grad():
        return _along_trajectories(context, given["encode"], refine)


def _along_trajectories(
    context: Context, encode: Callable[[Tensor], Any], refine: Callable[[str, Tensor, Any, Any, Tensor], Array]
) -> list[Array]:
    """Restored pictures of all samples, which are given in 8 bits, as the runtime keeps them.

    Each side encodes for itself: all methods are tried, and equalised programs have features of other scales.
    """
    restored: list[Array] = []
    original: Any = None
    for (image,), row in zip(context.samples[ENCODE], context.samples[REFINE], strict=True):
        estimate = encode(eight_bits(image))
        if original is None or torch.equal(row[2], row[4]):  # a trajectory begins where both roles are one picture
            original = estimate
        restored.append(refine(REFINE, eight_bits(row[0]), original, estimate, row[7]))
    for leaf in context.student.config.specialists:
        method = specialist_method(leaf)
        for picture, *_, gates in context.samples[method]:
            evidence = encode(eight_bits(picture))
            restored.append(refine(method, eight_bits(picture), evidence, evidence, gates))
    return restored


def eight_bits(picture: Tensor) -> Tensor:
    """A picture in [0, 1] as 8 bits keep it."""
    return (picture * 255).round() / 255
