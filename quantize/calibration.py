"""Calibration data: real trajectories of the full-precision student, first inputs and later iterations alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..distill.data import Mixture, list_pictures, to_tensor
from ..distill.degradations import KINDS, degrade
from ..distill.distillation import tokens_by_look
from ..distill.student import Encoded, Student
from ..runtime.methods import specialist_method
from ..runtime.pictures import read
from ..runtime.routing import Routing, gate_tensor, route
from ..runtime.tiles import TilePlan, cut, make_small, plan_tiles, to_program
from ..runtime.tree import LEAVES
from .config import QuantizeConfig

# Inputs by method: of encode and refine row by row of the same pictures, of specialists of others.
Samples = dict[str, list[tuple[Tensor, ...]]]


@torch.no_grad()
def draw_samples(student: Student, routing: Routing, photos: Path, tile: int, config: QuantizeConfig) -> Samples:
    """Inputs of all methods along trajectories: degraded photographs, refined as the runtime would.

    Where `routing` has tiles go by a look's tokens, in turn such tiles and such looks. Gates are the routed ones. Specialists
    see first iterations alone: of a picture's views all are, and what is left after them is another picture.
    """
    rng = np.random.default_rng(config.seed)
    paths = list_pictures(photos)
    samples: Samples = {"encode": [], "refine": []}
    for index in range(config.pictures):
        rgb = read(paths[int(rng.integers(len(paths)))]).rgb
        plan = plan_tiles(rgb.shape[0], rgb.shape[1], tile)
        place, mixture, seed = int(rng.integers(len(plan))), _mixture(index, rng), int(rng.integers(2**31))
        looked = None
        if routing.look_tokens:
            degraded = np.rint(degrade(rgb, mixture, seed) * 255).astype(np.uint8)
            current = look = torch.from_numpy(to_program(make_small(degraded, tile), tile))
            if index % 2 == 0:
                current, looked = torch.from_numpy(cut(degraded, plan, place)), student.encode(look)
        else:
            current = _degraded_tile(rgb, plan, place, mixture, seed)
        original = None
        for _ in range(config.iterations):
            estimate = student.encode(current)
            original = original or estimate
            samples["encode"].append((current,))
            gates = _gates(estimate, routing, student.config.rank)
            if looked is not None:
                estimate = estimate._replace(
                    tokens=tokens_by_look(routing, estimate.tokens, looked.assessment, looked.tokens)
                )
            samples["refine"].append((current, *original.features, *estimate.features[1:], estimate.tokens, gates))
            current = student.refine(current, original, estimate, gates)[0].clamp(0, 1)
    for leaf in student.config.specialists:
        samples[specialist_method(leaf)] = [
            (picture, *seen.features, *seen.features[1:], seen.tokens, _gates(seen, routing, student.config.rank))
            for picture in _alone(leaf, paths, tile, config)
            for seen in (student.encode(picture),)
        ]
    return samples


def _gates(seen: Encoded, routing: Routing, rank: int) -> Tensor:
    """The gates that an assessment opens, as refine takes them."""
    assessment = [float(v) for v in seen.assessment[0]]
    return torch.from_numpy(gate_tensor(routing, route(routing, assessment[1], assessment[2:]), rank))


def _alone(leaf: str, paths: Sequence[Path], tile: int, config: QuantizeConfig) -> Iterator[Tensor]:
    """Tiles with kinds of one leaf alone, in turn at full severity and at any."""
    rng = np.random.default_rng([config.seed, LEAVES.index(leaf)])
    kinds = [name for name, kind in KINDS.items() if kind.leaf == leaf]
    for index in range(config.pictures):
        rgb = read(paths[int(rng.integers(len(paths)))]).rgb
        plan = plan_tiles(rgb.shape[0], rgb.shape[1], tile)
        place = int(rng.integers(len(plan)))
        mixture = {kinds[int(rng.integers(len(kinds)))]: float(rng.random()) if index % 2 else 1.0}
        yield _degraded_tile(rgb, plan, place, mixture, int(rng.integers(2**31)))


def _degraded_tile(
    rgb: NDArray[np.float32], plan: TilePlan, place: int, mixture: dict[str, float], seed: int
) -> Tensor:
    """A tile of a picture, degraded by itself: (1, 3, tile, tile)."""
    clean = cut(rgb, plan, place)[0].transpose(1, 2, 0)
    return to_tensor(degrade(np.ascontiguousarray(clean), mixture, seed))[None]


def _mixture(index: int, rng: np.random.Generator) -> dict[str, float]:
    """In turn: each kind alone at full severity, since it is the strongest corrections that set the ranges, then random
    mixtures, and a clean picture once a round."""
    alone = list(KINDS)
    turn = index % (2 * len(alone) + 1)
    if turn < len(alone):
        return {alone[turn]: 1.0}
    return Mixture().draw(rng) if turn < 2 * len(alone) else {}
