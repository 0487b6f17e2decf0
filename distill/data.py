"""Training patches: photographs in a folder, degraded on the fly, every sample a pure function of its index."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from ..runtime.errors import InputError
from ..runtime.pictures import read
from ..runtime.routing import Routing
from ..runtime.tiles import GRID, make_small, to_program
from ..runtime.tree import LEAVES
from .degradations import KINDS, degrade
from .recipe import Frozen, check_known

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
MILDEST = 0.08
# Of varied samples: the share made small, how small at most; of those that are dark or hazy, the share made so afterwards.
SHRUNK, SMALLEST, AFTERWARDS = 0.6, 5.0, 0.5
# Of JPEG samples: the share that was cropped afterwards, so that blocks begin anywhere.
CROPPED = 0.5
# Scenes at a time that tiles are cut from, samples after which one is exchanged, and a scene's longer side in patches at most.
SCENES, TILES, WIDEST = 16, 16, 4
# Leaves that are still there in a picture made small; noise and blur are gone, and not to be told any more.
STAYING = Routing().whole
KEPT_BYTES = 2**30


class Mixture(Frozen):
    """What degrades a training sample: how many leaves of the tree at once, and which."""

    members: tuple[float, ...] = Field(
        default=(0.06, 0.56, 0.27, 0.11), description="shares of samples with 0, 1, 2, 3, … degradations"
    )
    leaves: dict[str, float] = Field(
        default={leaf: 2.0 if leaf == "noise" else 1.0 for leaf in LEAVES}, description="leaf → how often it is drawn"
    )
    mild: float = Field(
        default=1.0, gt=0, description="exponent of severities: 1 draws them evenly, a larger one mild ones more often"
    )
    varied: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of samples whose photograph gets other light, colours and size first",
    )
    wide: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of samples that are a tile of a larger picture, at all of which a student looks, made small",
    )

    @model_validator(mode="after")
    def _possible(self) -> Mixture:
        check_known(sorted(self.leaves), LEAVES)
        if min((*self.members, *self.leaves.values()), default=-1.0) < 0 or sum(self.members) <= 0:
            raise ValueError("shares must not be negative, and one of `members` must be positive")
        if len(self.members) - 1 > sum(weight > 0 for weight in self.leaves.values()):
            raise ValueError("`members` asks for more degradations at once than `leaves` has")
        return self

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """A random set of kinds, at most one a leaf, each with a severity."""
        members, weights = np.array(self.members), np.array([self.leaves.get(leaf, 0.0) for leaf in LEAVES])
        count = rng.choice(len(members), p=members / members.sum())
        leaves = rng.choice(len(LEAVES), size=count, replace=False, p=weights / weights.sum())
        mixture: dict[str, float] = {}
        for leaf in sorted(leaves):
            kinds = [name for name, kind in KINDS.items() if kind.leaf == LEAVES[leaf]]
            kind = kinds[rng.integers(len(kinds))]
            mixture[kind] = float(MILDEST + (1 - MILDEST) * rng.random() ** self.mild)
        return mixture


class Batch(NamedTuple):
    """What a training step sees; R is 0 where no teacher's trajectory was cached, and C where it has no features."""

    clean: Tensor  # (B, 3, P, P) in [0, 1]
    degraded: Tensor  # (B, 3, P, P) in [0, 1]
    look: Tensor  # (B, 3, P, P) in [0, 1]: all of the picture of which `degraded` is a tile, made small; itself where it is all
    severities: Tensor  # (B, leaves), 0 where a leaf is absent
    rounds: Tensor  # (B, R, 3, P, P) in [0, 1]: a teacher's pictures
    features: Tensor  # (B, R, C, h, w): a teacher's features

    @classmethod
    def untaught(cls, clean: Tensor, degraded: Tensor, severities: Tensor, look: Tensor | None = None) -> Batch:
        """Samples, batched or single, without a teacher's trajectory, of whole pictures unless there is a look at more."""
        lead = severities.shape[:-1]
        rounds, features = clean.new_zeros(*lead, 0, *clean.shape[-3:]), clean.new_zeros(*lead, 0, 0, 1, 1)
        return cls(clean, degraded, degraded if look is None else look, severities, rounds, features)


class Source(Protocol):
    """Where training samples come from."""

    def samples(self, start: int, stop: int) -> Dataset[Batch]:
        """Samples `start` … `stop` of an endless sequence; each depends on its place alone, so that a run can resume."""
        ...


@dataclass(frozen=True)
class Photographs:
    """Photographs in a folder, degraded anew for every sample."""

    folder: Path
    mixture: Mixture
    patch: int
    seed: int

    def samples(self, start: int, stop: int) -> Dataset[Batch]:
        """Raises InputError when the folder holds no picture."""
        return DegradedPatches(list_pictures(self.folder), self.mixture, self.patch, stop, self.seed, start)


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a folder of photographs")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise InputError(f"no picture in {folder}; expected files ending in {', '.join(PICTURE_SUFFIXES)}")
    return found


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and sizes of the pictures below `folder`: whether a run goes on with the data it began with."""
    listed = "".join(
        f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n" for path in list_pictures(folder)
    )
    return hashlib.sha256(listed.encode()).hexdigest()


def to_tensor(picture: NDArray[Any]) -> Tensor:
    """A picture H×W×3 as a float32 tensor (3, H, W) of its own."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))


class Pictures:
    """Pictures by path as 8-bit H×W×3, decoded once while those last used take at most `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, path: Path) -> NDArray[np.uint8]:
        pixels = self._kept.pop(path, None)
        if pixels is None:
            pixels = np.round(read(path).rgb * 255).astype(np.uint8)
            self._bytes += pixels.nbytes
        self._kept[path] = pixels
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


def vary(clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A photograph, H×W×3 in [0, 1], as it could have been taken: other exposure, contrast, white balance, saturation, grain.

    How bright and how colourful a scene was is what haze and darkness hide. Where photographs are few, a student learns it of
    each by heart. Fine grain is part of a photograph, and what is nearly clean is to keep it.
    """
    contrast = float(np.exp(rng.uniform(-0.3, 0.3)))
    gains = np.exp(rng.uniform(-0.3, 0.15) + rng.normal(0.0, 0.03, 3)).astype(np.float32)
    saturation = float(rng.uniform(0.5, 1.3))
    lit = np.power(clean, contrast) * gains
    luma = lit @ np.array([0.299, 0.587, 0.114], np.float32)
    grain = rng.normal(0.0, rng.uniform(0.0, 2.0 / 255), clean.shape)
    return np.clip(luma[..., None] + saturation * (lit - luma[..., None]) + grain, 0.0, 1.0).astype(np.float32)


def shrink(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A square picture S×S×3 in [0, 1] averaged down to `side`², rounded to 8 bits."""
    planes = to_tensor(picture)[None]
    small = F.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return (np.round(small[0].permute(1, 2, 0).numpy() * 255.0) / 255.0).astype(np.float32)


class Scene(NamedTuple):
    """A degraded picture that several samples are tiles of."""

    clean: NDArray[np.float32]  # H×W×3 in [0, 1]
    degraded: NDArray[np.float32]
    look: NDArray[np.float32]  # (3, P, P)
    severities: NDArray[np.float32]

    def cut(self, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of a tile of `side`², where the runtime could cut."""
        top, left = (GRID * int(rng.integers((length - side) // GRID + 1)) for length in self.clean.shape[:2])
        return slice(top, top + side), slice(left, left + side)


class DegradedPatches(Dataset[Batch]):
    """Random crops, flipped and turned, with a random mixture of degradations.

    Of those that are varied, some are larger crops made small: mostly before they are degraded, as if taken from further
    away; some of the dark and hazy ones after, as pictures are before they are sent, which takes their noise. Wide ones are
    tiles of scenes, as the runtime cuts and looks at them; a scene serves samples that lie apart, since degrading it is slow.

    Sample `i` depends on `(seed, i)` alone, so a resumed run sees exactly the samples it would have seen.
    """

    def __init__(self, photos: list[Path], mixture: Mixture, patch: int, count: int, seed: int, start: int = 0):
        self.photos, self.mixture, self.patch, self.seed = photos, mixture, patch, seed
        self.start, self.count = start, count
        self.pictures = Pictures()
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return self.count - self.start

    def _photo(self, path: Path) -> NDArray[np.uint8]:
        """A photograph, enlarged where it is smaller than a patch."""
        pixels = self.pictures[path]
        height, width = pixels.shape[:2]
        if min(height, width) >= self.patch:
            return pixels
        scale = self.patch / min(height, width)
        return np.asarray(Image.fromarray(pixels).resize((round(width * scale) + 1, round(height * scale) + 1)))

    @staticmethod
    def _degrade(
        clean: NDArray[np.float32], mixture: dict[str, float], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        seed = int(rng.integers(2**31))
        if "jpeg" not in mixture or rng.random() >= CROPPED:
            return degrade(clean, mixture, seed)
        top, left = rng.integers(GRID, size=2)
        return degrade(np.pad(clean, ((top, 0), (left, 0), (0, 0)), "reflect"), mixture, seed)[top:, left:]

    @staticmethod
    def _crop(pixels: NDArray[np.uint8], height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random part of a photograph, flipped and turned, in [0, 1]."""
        top = rng.integers(pixels.shape[0] - height + 1)
        left = rng.integers(pixels.shape[1] - width + 1)
        crop = np.rot90(pixels[top : top + height, left : left + width], 2 * int(rng.integers(2)))
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return np.ascontiguousarray(crop, np.float32) / 255.0

    def __getitem__(self, index: int) -> Batch:
        place = self.start + index
        rng = np.random.default_rng([self.seed, place])
        if self.mixture.wide > 0 and rng.random() < self.mixture.wide:
            return self._tile(place, rng)
        pixels = self._photo(self.photos[rng.integers(len(self.photos))])
        varied = self.mixture.varied > 0 and rng.random() < self.mixture.varied
        side = self.patch
        if varied and rng.random() < SHRUNK:
            # Up to the whole picture: what is dark and what is only a dark corner shows in all of it.
            side = int(self.patch * min(SMALLEST, min(pixels.shape[:2]) / self.patch) ** rng.random())
        clean = self._crop(pixels, side, side, rng)
        mixture = self.mixture.draw(rng)
        stays = any(KINDS[kind].leaf in STAYING for kind in mixture)
        afterwards = side > self.patch and stays and rng.random() < AFTERWARDS
        if side > self.patch and not afterwards:
            clean = shrink(clean, self.patch)
        if varied:
            clean = vary(clean, rng)
        degraded = self._degrade(clean, mixture, rng)
        if afterwards:
            clean, degraded = shrink(clean, self.patch), shrink(degraded, self.patch)
        return Batch.untaught(to_tensor(clean), to_tensor(degraded), torch.from_numpy(_severities(mixture)))

    def _tile(self, place: int, rng: np.random.Generator) -> Batch:
        """A tile of a scene, cut where the runtime would cut, and the look at the scene."""
        number = place // TILES + place % SCENES
        if number not in self._scenes:
            if len(self._scenes) == SCENES:
                del self._scenes[min(self._scenes)]
            self._scenes[number] = self.scene(number)
        scene = self._scenes[number]
        part = scene.cut(self.patch, rng)
        severities = torch.from_numpy(scene.severities)
        return Batch.untaught(
            to_tensor(scene.clean[part]), to_tensor(scene.degraded[part]), severities, torch.from_numpy(scene.look)
        )

    def scene(self, number: int) -> Scene:
        """A degraded picture of at most `WIDEST` patches' side, and the look at it; depends on `(seed, number)` alone."""
        rng = np.random.default_rng([self.seed, number, 1])
        pixels = self._photo(self.photos[rng.integers(len(self.photos))])
        height, width = pixels.shape[:2]
        least = self.patch / min(height, width)
        scale = least * max(1.0, min(1.0, WIDEST * self.patch / max(height, width)) / least) ** rng.random()
        clean = self._crop(pixels, max(self.patch, int(height * scale)), max(self.patch, int(width * scale)), rng)
        if rng.random() < self.mixture.varied:
            clean = vary(clean, rng)
        mixture = self.mixture.draw(rng)
        degraded = self._degrade(clean, mixture, rng)
        look = to_program(make_small(np.round(degraded * 255).astype(np.uint8), self.patch), self.patch)[0]
        return Scene(clean, degraded, look, _severities(mixture))


def _severities(mixture: dict[str, float]) -> NDArray[np.float32]:
    """The severity of every leaf, 0 where it is absent."""
    severities = np.zeros(len(LEAVES), np.float32)
    for kind, severity in mixture.items():
        severities[LEAVES.index(KINDS[kind].leaf)] = severity
    return severities
