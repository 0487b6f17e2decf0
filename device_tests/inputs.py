"""What every device runs to be compared: a few degraded tiles with gates, the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.bundle import Bundle
from ..runtime.routing import gate_tensor, given_gates
from ..runtime.selftest import read_inputs

Tensors = dict[str, NDArray[Any]]


def probe_samples(bundle: Bundle, count: int = 2) -> Tensors:
    """`i.image` (1, 3, tile, tile) in [0, 1], `i.gates` (1, E·rank, 1, 1) and, from the second on, `i.current`.

    Drawn from a seed: gradients, edges and waves like a photograph's, under noise, in a veil, in the dark; whatever is
    installed, every device gets the same numbers.
    """
    manifest = bundle.manifest
    routing, rank = manifest.routing, manifest.student.rank
    samples: Tensors = {}
    for index in range(count):
        rng = np.random.default_rng(index)
        clean = _scene(manifest.tile, rng)
        degraded = (0.35 + 0.65 * index) * clean + rng.normal(0, 0.08, clean.shape)
        samples[f"{index}.image"] = _planes(degraded)
        if index:
            samples[f"{index}.current"] = _planes(0.6 * degraded + 0.4 * clean)
        opened = {
            name: round(float(rng.uniform(0.2, 0.9)), 3) for name in rng.choice(routing.experts, routing.top, False)
        }
        samples[f"{index}.gates"] = gate_tensor(routing, given_gates(routing, opened), rank)
    return samples


def comparison_samples(bundle: Bundle) -> Tensors:
    """What a profile compares: a drawn sample, the same for every bundle of a size, and the bundle's own test inputs.

    A second drawn one where the bundle brings none. Raises BundleError for damaged ones.
    """
    if bundle.manifest.self_test is None:
        return probe_samples(bundle)
    own = {f"1.{name}": value for name, value in read_inputs(bundle)._asdict().items()}
    return probe_samples(bundle, 1) | own


def _scene(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Something with the frequencies of a photograph, side × side × 3 around [0, 1]."""
    y, x = np.mgrid[0:side, 0:side] / side
    scene = np.repeat((0.3 + 0.4 * y)[..., None], 3, axis=2)
    for _ in range(12):
        top, left, height, width = rng.uniform(0, 1, 4)
        box = (y > top) & (y < top + height / 2) & (x > left) & (x < left + width / 2)
        wave = 0.1 * np.sin(2 * np.pi * (rng.uniform(1, 60) * x + rng.uniform(1, 60) * y))
        scene[box] = rng.uniform(0, 1, 3) + wave[box][:, None]
    return scene


def _planes(scene: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.clip(scene, 0, 1).transpose(2, 0, 1)[None], np.float32)
