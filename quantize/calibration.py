"""Calibration data: real trajectories of the full-precision student, first inputs and later iterations alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..distill.data import Mixture, list_pictures
from ..distill.degradations import KINDS, degrade
from ..distill.student import Student
from ..runtime.pictures import read
from ..runtime.routing import Routing, gate_tensor, route
from ..runtime.tiles import cut, plan_tiles
from .config import QuantizeConfig

Samples = dict[str, list[tuple[Tensor, ...]]]


@torch.no_grad()
def draw_samples(student: Student, routing: Routing, photos: Path, tile: int, config: QuantizeConfig) -> Samples:
    """Inputs of both methods along trajectories: degraded photographs, refined as the runtime would.

    Gates are the routed ones.
    """
    rng = np.random.default_rng(config.seed)
    paths = list_pictures(photos)
    samples: Samples = {"encode": [], "refine": []}
    for index in range(config.pictures):
        rgb = read(paths[int(rng.integers(len(paths)))]).rgb
        plan = plan_tiles(rgb.shape[0], rgb.shape[1], tile)
        clean = cut(rgb, plan, int(rng.integers(len(plan.origins))))[0].transpose(1, 2, 0)
        mixture = _mixture(index, rng)
        degraded = degrade(np.ascontiguousarray(clean), mixture, int(rng.integers(2**31)))
        current = torch.from_numpy(np.ascontiguousarray(degraded.transpose(2, 0, 1)[None]))
        original = None
        for _ in range(config.iterations):
            estimate = student.encode(current)
            original = original or estimate
            samples["encode"].append((current,))
            assessment = [float(v) for v in estimate.assessment[0]]
            gates = torch.from_numpy(
                gate_tensor(routing, route(routing, assessment[1], assessment[2:]), student.config.rank)
            )
            samples["refine"].append((current, *original.features, *estimate.features[1:], estimate.tokens, gates))
            current = student.refine(current, original, estimate, gates)[0].clamp(0, 1)
    return samples


def _mixture(index: int, rng: np.random.Generator) -> dict[str, float]:
    """In turn: each kind alone at full severity, since it is the strongest corrections that set the ranges, then random
    mixtures, and a clean picture once a round."""
    alone = list(KINDS)
    turn = index % (2 * len(alone) + 1)
    if turn < len(alone):
        return {alone[turn]: 1.0}
    return Mixture().draw(rng) if turn < 2 * len(alone) else {}
