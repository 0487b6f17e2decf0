"""Overlapping tiles of a program's fixed size, and how they are blended into one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERLAP = 32


@dataclass(frozen=True)
class TilePlan:
    """Where tiles of side `tile` lie on a picture of `height` × `width`; smaller pictures are mirrored up to one tile."""

    height: int
    width: int
    tile: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def origins(self) -> list[tuple[int, int]]:
        """(top, left) of every tile, row by row."""
        return [(top, left) for top in self.rows for left in self.columns]


def plan_tiles(height: int, width: int, tile: int, overlap: int = OVERLAP) -> TilePlan:
    """The fewest tiles that cover the picture with at least `overlap` pixels shared, spread evenly."""
    return TilePlan(height, width, tile, _starts(height, tile, overlap), _starts(width, tile, overlap))


def _starts(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    if length <= tile:
        return (0,)
    count = -(-(length - overlap) // (tile - overlap))
    return tuple((length - tile) * i // (count - 1) for i in range(count))


def cut(picture: NDArray[np.float32], plan: TilePlan, index: int) -> NDArray[np.float32]:
    """Tile `index` of an H×W×3 picture as (1, 3, tile, tile), mirrored where the picture is smaller than a tile."""
    top, left = plan.origins[index]
    piece = picture[top : top + plan.tile, left : left + plan.tile]
    short = plan.tile - piece.shape[0], plan.tile - piece.shape[1]
    if any(short):
        piece = np.pad(piece, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(piece.transpose(2, 0, 1)[None])


def window(plan: TilePlan, index: int) -> NDArray[np.float32]:
    """Blending weights of a tile, (tile, tile): a raised-cosine ramp over what it shares with each neighbour."""
    top, left = plan.origins[index]
    down = _ramp(top, plan.rows, plan.tile)
    across = _ramp(left, plan.columns, plan.tile)
    return down[:, None] * across[None, :]


def _ramp(start: int, starts: tuple[int, ...], tile: int) -> NDArray[np.float32]:
    weights = np.ones(tile, np.float32)
    position = starts.index(start)
    if position > 0:
        shared = starts[position - 1] + tile - start
        weights[:shared] = _rise(shared)
    if position + 1 < len(starts):
        shared = start + tile - starts[position + 1]
        weights[-shared:] = np.minimum(weights[-shared:], _rise(shared)[::-1])
    return weights


def _rise(length: int) -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


def blend(tiles: list[NDArray[np.float32]], plan: TilePlan) -> NDArray[np.float32]:
    """The picture H×W×3 that tiles of shape (1, 3, tile, tile) make together; weights are normalised at every pixel."""
    total = np.zeros((plan.height, plan.width, 3), np.float32)
    weights = np.zeros((plan.height, plan.width, 1), np.float32)
    for index, (top, left) in enumerate(plan.origins):
        height, width = min(plan.tile, plan.height - top), min(plan.tile, plan.width - left)
        weight = window(plan, index)[:height, :width, None]
        total[top : top + height, left : left + width] += weight * tiles[index][0, :, :height, :width].transpose(
            1, 2, 0
        )
        weights[top : top + height, left : left + width] += weight
    return total / weights
