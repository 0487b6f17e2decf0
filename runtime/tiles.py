"""Overlapping tiles of a program's fixed size, and how they are blended into one picture.

Pictures and tiles are H×W×3 of uint8 or uint16; programs see float32 (1, 3, tile, tile) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

OVERLAP = 32
# Tiles start on the grid of JPEG's blocks, 8 pixels wide, of colour mostly 16: blocks that lie elsewhere in a tile than in the
# pictures a student learned from are left, and hide what else is wrong with the picture (docs/decisions.md).
GRID = 16

Pixels = NDArray[Any]  # uint8 or uint16, H×W×3
Array = NDArray[np.float32]


class Region(NamedTuple):
    """A rectangle of a picture in pixels; `bottom` and `right` are outside it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a picture with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class TilePlan:
    """Where tiles of side `tile` lie on a picture of `height` × `width`; smaller pictures are mirrored up to one tile."""

    height: int
    width: int
    tile: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def origins(self) -> list[tuple[int, int]]:
        """(top, left) of every tile, row by row."""
        return [(top, left) for top in self.rows for left in self.columns]

    def region(self, index: int) -> Region:
        """The part of the picture that a tile covers."""
        row, column = divmod(index, len(self.columns))
        top, left = self.rows[row], self.columns[column]
        return Region(top, left, min(top + self.tile, self.height), min(left + self.tile, self.width))

    @cached_property
    def ramps(self) -> tuple[list[Array], list[Array]]:
        """Blending weights down every row of tiles and across every column; at each pixel they sum to 1."""
        return _ramps(self.rows, self.tile, self.height), _ramps(self.columns, self.tile, self.width)

    @cached_property
    def areas(self) -> list[float]:
        """Every tile's share of the picture: its blending weights over the picture's pixels. They sum to 1."""
        down, across = ([float(np.sum(r, dtype=np.float64)) for r in ramps] for ramps in self.ramps)
        return [d * a / (self.height * self.width) for d in down for a in across]

    def overlapping(self, region: Region) -> list[int]:
        """The tiles that cover a part of `region`."""
        rows = [i for i, top in enumerate(self.rows) if top < region.bottom and top + self.tile > region.top]
        columns = [i for i, left in enumerate(self.columns) if left < region.right and left + self.tile > region.left]
        return [row * len(self.columns) + column for row in rows for column in columns]


def plan_tiles(height: int, width: int, tile: int, overlap: int = OVERLAP) -> TilePlan:
    """The fewest tiles on the grid that cover the picture with at least `overlap` pixels shared, spread evenly.

    `tile`: a multiple of GRID. The last ones may reach over the picture's edge by less than GRID, and are mirrored there.
    """
    return TilePlan(height, width, tile, _starts(height, tile, overlap), _starts(width, tile, overlap))


def _starts(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    if length <= tile:
        return (0,)
    cells, wide, shared = -(-length // GRID), tile // GRID, -(-overlap // GRID)
    count = -(-(cells - shared) // (wide - shared))
    return tuple((cells - wide) * i // (count - 1) * GRID for i in range(count))


def _ramps(starts: tuple[int, ...], tile: int, length: int) -> list[Array]:
    """Raised cosines over what a tile shares with each neighbour, divided by their sum, where more than two meet."""
    raw: list[NDArray[np.float64]] = []
    total = np.zeros(length)
    for position, start in enumerate(starts):
        weights = np.ones(min(tile, length - start))
        if position > 0:
            shared = starts[position - 1] + tile - start
            weights[:shared] = _rise(shared)
        if position + 1 < len(starts):
            shared = start + tile - starts[position + 1]
            weights[tile - shared :] = np.minimum(weights[tile - shared :], _rise(shared)[::-1])
        total[start : start + tile] += weights
        raw.append(weights)
    return [
        (weights / total[start : start + tile]).astype(np.float32) for start, weights in zip(starts, raw, strict=True)
    ]


def _rise(length: int) -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)


def cut(picture: Pixels, plan: TilePlan, index: int) -> Array:
    """A tile of an H×W×3 picture (integers, or float32 in [0, 1]), as a program takes it."""
    return to_program(picture[plan.region(index).slices], plan.tile)


def to_program(pixels: Pixels, tile: int) -> Array:
    """H×W×3 as float32 (1, 3, tile, tile) in [0, 1], mirrored where it is smaller than a tile."""
    short = tile - pixels.shape[0], tile - pixels.shape[1]
    if any(short):
        pixels = np.pad(pixels, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    planes = np.empty((1, 3, tile, tile), np.float32)
    peak = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    np.divide(pixels.transpose(2, 0, 1), np.float32(peak), out=planes[0])
    return planes


def from_program(planes: Array, like: Pixels) -> Pixels:
    """A program's (1, 3, tile, tile) as integers of the size and type of `like`, clipped and rounded."""
    height, width = like.shape[:2]
    peak = np.iinfo(like.dtype).max
    scaled = planes[0, :, :height, :width].transpose(1, 2, 0) * np.float32(peak)
    return np.rint(np.clip(scaled, 0, peak, out=scaled), out=scaled).astype(like.dtype)


def mirror(planes: Array, view: int) -> Array:
    """A program's (1, 3, tile, tile) with left and right exchanged (view 1), upside down (2), or both (3).

    Doing it again undoes it; JPEG's blocks stay on the GRID.
    """
    return np.ascontiguousarray(np.flip(planes, ((3,), (2,), (2, 3))[view - 1]))


def blend(tiles: Sequence[Pixels], plan: TilePlan, region: Region | None = None) -> Pixels:
    """The picture that tiles make together, or the part of it in `region`."""
    region = region or Region(0, 0, plan.height, plan.width)
    if len(plan) == 1:
        return tiles[0][region.slices]
    total = np.zeros((region.bottom - region.top, region.right - region.left, 3), np.float32)
    down, across = plan.ramps
    for index in plan.overlapping(region):
        row, column = divmod(index, len(plan.columns))
        own = plan.region(index)
        top, left = max(own.top, region.top), max(own.left, region.left)
        bottom, right = min(own.bottom, region.bottom), min(own.right, region.right)
        inside = (slice(top - own.top, bottom - own.top), slice(left - own.left, right - own.left))
        weights = down[row][inside[0], None] * across[column][None, inside[1]]
        shared = slice(top - region.top, bottom - region.top), slice(left - region.left, right - region.left)
        total[shared] += weights[..., None] * tiles[index][inside]
    return np.rint(total).astype(tiles[0].dtype)


def small_size(height: int, width: int, tile: int) -> tuple[int, int]:
    """Height and width of a picture made small enough that its longer side is a tile's."""
    scale = tile / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def make_small(picture: Pixels, tile: int) -> Pixels:
    """A picture as uint8, averaged down to `small_size`."""
    height, width = small_size(picture.shape[0], picture.shape[1], tile)
    shallow = picture if picture.dtype == np.uint8 else (picture // 257).astype(np.uint8)
    return np.asarray(Image.fromarray(shallow).resize((width, height), Image.Resampling.BOX))
