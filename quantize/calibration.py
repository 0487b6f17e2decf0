"""Calibration data: real trajectories of the full-precision student, first inputs and later iterations alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..distill.data import list_pictures, random_mixture
from ..distill.degradations import degrade
from ..distill.student import Student
from ..runtime.pictures import read
from ..runtime.routing import Routing, gate_tensor, route
from ..runtime.tiles import cut, plan_tiles
from .config import QuantizeConfig

Samples = dict[str, list[tuple[Tensor, ...]]]


@torch.no_grad()
def draw_samples(student: Student, routing: Routing, photos: Path, tile: int, config: QuantizeConfig) -> Samples:
    """Inputs of both methods along trajectories: degraded photographs, refined as the runtime would.

    Every eighth picture stays clean, the others suffer random mixtures; gates are the routed ones.
    """
    rng = np.random.default_rng(config.seed)
    paths = list_pictures(photos)
    samples: Samples = {"encode": [], "refine": []}
    for index in range(config.pictures):
        rgb = read(paths[int(rng.integers(len(paths)))]).rgb
        plan = plan_tiles(*rgb.shape[:2], tile)
        clean = cut(rgb, plan, int(rng.integers(len(plan.origins))))[0].transpose(1, 2, 0)
        mixture = {} if index % 8 == 7 else random_mixture(rng)
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
