"""Training patches: photographs in a folder, degraded on the fly, every sample a pure function of its index."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..runtime.errors import InputError
from ..runtime.tree import LEAVES
from .degradations import KINDS, degrade

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# Share of samples with 0, 1, 2 and 3 degradations.
MEMBERS = (0.06, 0.56, 0.27, 0.11)
SEVEREST = 1.0
MILDEST = 0.08


class Batch(NamedTuple):
    """`clean`, `degraded`: (B, 3, P, P) in [0, 1]; `severities`: (B, leaves), 0 where a leaf is absent."""

    clean: Tensor
    degraded: Tensor
    severities: Tensor


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a folder of photographs")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise InputError(f"no picture in {folder}; expected files ending in {', '.join(PICTURE_SUFFIXES)}")
    return found


class DegradedPatches(Dataset[Batch]):
    """Random crops, flipped and turned, with a random mixture of degradations.

    Sample `i` depends on `(seed, i)` alone, so a resumed run sees exactly the samples it would have seen.
    """

    def __init__(self, photos: list[Path], patch: int, count: int, seed: int, start: int = 0, cached: int = 1024):
        self.photos, self.patch, self.seed = photos, patch, seed
        self.start, self.count = start, count
        self._cache: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()
        self._cached = cached

    def __len__(self) -> int:
        return self.count - self.start

    def _read(self, path: Path) -> NDArray[np.uint8]:
        pixels = self._cache.get(path)
        if pixels is None:
            image = Image.open(path).convert("RGB")
            if min(image.size) < self.patch:
                scale = self.patch / min(image.size)
                image = image.resize((round(image.width * scale) + 1, round(image.height * scale) + 1))
            pixels = np.asarray(image)
            self._cache[path] = pixels
            if len(self._cache) > self._cached:
                self._cache.popitem(last=False)
        return pixels

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, self.start + index])
        pixels = self._read(self.photos[rng.integers(len(self.photos))])
        top = rng.integers(pixels.shape[0] - self.patch + 1)
        left = rng.integers(pixels.shape[1] - self.patch + 1)
        crop = np.rot90(pixels[top : top + self.patch, left : left + self.patch], 2 * int(rng.integers(2)))
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        clean = np.ascontiguousarray(crop, np.float32) / 255.0
        mixture = random_mixture(rng)
        degraded = degrade(clean, mixture, int(rng.integers(2**31)))
        severities = np.zeros(len(LEAVES), np.float32)
        for kind, severity in mixture.items():
            severities[LEAVES.index(KINDS[kind].leaf)] = severity
        return Batch(_tensor(clean), _tensor(degraded), torch.from_numpy(severities))


def random_mixture(rng: np.random.Generator) -> dict[str, float]:
    """A random set of kinds, at most one a leaf, with severities."""
    leaves = rng.choice(len(LEAVES), size=rng.choice(len(MEMBERS), p=MEMBERS), replace=False)
    mixture: dict[str, float] = {}
    for leaf in sorted(leaves):
        kinds = [name for name, kind in KINDS.items() if kind.leaf == LEAVES[leaf]]
        mixture[kinds[rng.integers(len(kinds))]] = float(rng.uniform(MILDEST, SEVEREST))
    return mixture


def _tensor(picture: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
