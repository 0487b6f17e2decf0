"""Pairs of pictures of a new degradation and of what they should be, and the pictures a student knows already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..runtime.errors import InputError
from ..runtime.routing import Routing
from .data import Batch, Mixture, Pictures, list_pictures, to_tensor
from .degradations import degrade

LOOK = 256  # side of what is judged, where the pairs are as large: about a tile, which is what is assessed in use
# Known pictures are a mixture like training's, with more clean ones: there the least change shows.
OTHERS = Mixture(members=(0.25, 0.45, 0.2, 0.1))


@dataclass(frozen=True)
class Pairs:
    """Pictures of the new degradation and what they should be: `folder/degraded/NAME`, `folder/clean/NAME`."""

    folder: Path
    routing: Routing
    leaf: str
    patch: int
    seed: int

    def samples(self, start: int, stop: int) -> Dataset[Batch]:
        """Crops of the pairs. Raises InputError when `folder` holds none."""
        return _Crops(self, start, stop, self.patch, stream=1)

    def crops(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` crops (3, P, P) like those of training, with the new degradation, and without."""
        return _both(_Crops(self, 0, count, self.patch, stream=4))

    def new(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` pictures (3, H, W) with the new degradation, and without."""
        return _both(_Crops(self, 0, count, LOOK, stream=2))

    def known(self, count: int) -> Iterator[Tensor]:
        """`count` pictures (3, H, W) that the student knows: clean halves, degraded anew.

        Every second one has its colours exchanged: a few photographs must stand for all, and a picture without red is
        no new degradation.
        """
        crops = _Crops(self, 0, count, LOOK, stream=3)
        for index in range(count):
            rng = np.random.default_rng([self.seed, 5, index])
            picture = crops[index].clean.permute(1, 2, 0).numpy()
            if index % 2:
                picture = picture[..., rng.permutation(3)]
            yield to_tensor(degrade(picture, OTHERS.draw(rng), int(rng.integers(2**31))))

    def paths(self) -> list[tuple[Path, Path]]:
        """Degraded and clean halves. Raises InputError when one is missing, or all are."""
        degraded, clean = self.folder / "degraded", self.folder / "clean"
        pairs = [(path, clean / path.relative_to(degraded)) for path in list_pictures(degraded)]
        for _, path in pairs:
            if not path.is_file():
                raise InputError(f"{path} is missing; expected a clean picture for every degraded one")
        return pairs


class _Crops(Dataset[Batch]):
    """Random crops of `side`², or of the shorter side of a picture that is smaller."""

    def __init__(self, pairs: Pairs, start: int, stop: int, side: int, stream: int) -> None:
        self.pairs, self.start, self.stop, self.side, self.stream = pairs, start, stop, side, stream
        self._paths, self._pictures = pairs.paths(), Pictures()

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.pairs.seed, self.stream, self.start + index])
        paths = self._paths[rng.integers(len(self._paths))]
        degraded, clean = (self._pictures[path] for path in paths)
        height, width = clean.shape[:2]
        if degraded.shape != clean.shape or min(height, width) < self.pairs.patch:
            raise InputError(
                f"{paths[0]}: pairs must have one size, at least {self.pairs.patch}²; got {width}×{height}"
            )
        side = min(self.side, height // 8 * 8, width // 8 * 8)
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))

        def crop(pixels: NDArray[np.uint8]) -> Tensor:
            return to_tensor(pixels[top : top + side, left : left + side]) / 255

        severities = torch.tensor([float(leaf == self.pairs.leaf) for leaf in self.pairs.routing.leaves])
        return Batch.untaught(crop(clean), crop(degraded), severities)


def _both(crops: _Crops) -> Iterator[tuple[Tensor, Tensor]]:
    """Degraded and clean halves."""
    for index in range(len(crops)):
        crop = crops[index]
        yield crop.degraded, crop.clean
