"""Tiles: does guiding the time pay, and do borders show?

    python benchmarks/tiles.py guided [PHOTOS] [--seeds 2]
    python benchmarks/tiles.py borders [PHOTOS] [--side 1024]

guided: pictures enlarged to 1536 pixels whose degradation varies over the frame (three of: rain, snow, haze, low light, noise,
defocus, nothing). Quality-guided tiles against as many iterations of every tile, at equal time, and the time
after which they reach what n iterations of every tile reach. Time is counted in the steps that ran, an encode and a refine at
what each takes here, so that a busy machine favours neither.

borders: haze and low light, tiled by the runtime against the whole frame through the full-precision student (needs torch).
PSNR of both; by how much the tiled one is better: on the mean, with its standard error, in the median picture, and in the
middle half of the pictures; and what a border adds: the difference of 8-pixel bands on both sides of where a tile begins or
ends, averaged over 64 pixels along it, in the difference between the two results; and the same at lines where there is no
border.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from burnish.device_tests.metrics import psnr
from burnish.distill.data import list_pictures
from burnish.distill.degradations import degrade
from burnish.runtime import Restorer
from burnish.runtime.pictures import read
from burnish.runtime.tiles import TilePlan, plan_tiles
from numpy.typing import NDArray
from PIL import Image

PHOTOS = Path(__file__).parents[1] / "recipes" / "photos" / "eval"
KINDS = (
    {"rain": 0.6},
    {"snow": 0.6},
    {"haze": 0.6},
    {"low_light": 0.6},
    {"gaussian_noise": 0.6},
    {"defocus_blur": 0.6},
    {},
)
Array = NDArray[np.float32]
Curve = list[tuple[float, float]]


def varied(clean: Array, seed: int) -> Array:
    """Three degradations in three parts of the frame, along its longer side, with soft borders."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(len(KINDS))[:3]
    height, width = clean.shape[:2]
    along = np.linspace(0, 3, width)[None] if width >= height else np.linspace(0, 3, height)[:, None]
    parts = [degrade(clean, KINDS[kind], seed=seed * 10 + int(kind)) for kind in kinds]
    first = np.clip((along - 1) * 8 + 0.5, 0, 1)[..., None]
    second = np.clip((along - 2) * 8 + 0.5, 0, 1)[..., None]
    mixed = parts[0] * (1 - first) + parts[1] * (first - second) + parts[2] * second
    return np.rint(mixed * 255).astype(np.float32) / 255


def curve(restorer: Restorer, degraded: Array, clean: Array, guided: bool, cost: tuple[float, float]) -> Curve:
    """(time, PSNR) after every refine; time in milliseconds of steps at `cost` (encode, refine)."""
    wanted = {"max_iterations": 4, "min_gain": -1.0, "rollback": False}
    stream = restorer.stream(np.rint(degraded * 255).astype(np.uint8), min_iterations=0 if guided else 4, **wanted)
    points: Curve = [(0.0, psnr(degraded, clean))]
    for update in stream:
        trace = stream.result.trace
        spent = sum(cost[1] if event.ran == "refine" else cost[0] for event in trace)
        points.append((spent, psnr(update.pixels.astype(np.float32) / 255, clean)))
    return points


def at(points: Curve, time_ms: float) -> float:
    """PSNR of what is there at a time."""
    return [value for when, value in points if when <= time_ms][-1]


def reached(points: Curve, value: float) -> float:
    """When a PSNR is first there; infinity when never."""
    return next((when for when, there in points if there >= value), float("inf"))


def guided(folder: Path, seeds: int) -> None:
    restorer = Restorer.load(backend="onnxruntime", threads=1)
    model = restorer._engine.cost
    cost = (model.encode.mean, model.refine.mean)
    factors, counts = (1.25, 1.5, 1.75, 2.0, 3.0), (1, 2, 3, 4)
    gains: dict[float, list[float]] = {f: [] for f in factors}
    shares: dict[int, list[float]] = {n: [] for n in counts}
    rounds: list[list[float]] = []
    for index, path in enumerate(list_pictures(folder)):
        image = Image.fromarray(read(path).pixels)
        scale = 1536 / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        clean = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32) / 255
        tiles = len(plan_tiles(*clean.shape[:2], restorer.bundle.manifest.tile))
        for seed in range(seeds):
            degraded = varied(clean, index * seeds + seed)
            one, other = (curve(restorer, degraded, clean, kind, cost) for kind in (False, True))
            whole = one[tiles][0]
            rounds.append([one[n * tiles][1] for n in range(5)])
            for factor in factors:
                gains[factor].append(at(other, factor * whole) - at(one, factor * whole))
            for n in counts:
                shares[n].append(reached(other, one[n * tiles][1]) / one[n * tiles][0])
    print(f"{len(rounds)} pictures, encode {cost[0]:.1f} ms, refine {cost[1]:.1f} ms; 1 is one iteration of every tile")
    print("every tile, PSNR after 0 to 4 iterations:", " ".join(f"{v:.2f}" for v in np.mean(rounds, axis=0)))
    for factor, values in gains.items():
        spread = f"median {statistics.median(values):.2f}, worst {min(values):.2f}"
        print(f"at time {factor}: {np.mean(values):+.2f} dB ({spread})")
    for n, values in shares.items():
        never = sum(value == float("inf") for value in values)
        print(
            f"what {n} iterations of every tile reach: in {100 * statistics.median(values):.0f} % of the time, never {never}"
        )


def borders(folder: Path, side: int) -> None:
    import torch
    from burnish.distill.weights import load_student
    from burnish.runtime.bundle import EMBEDDED
    from burnish.runtime.routing import gate_tensor, route

    restorer = Restorer.load(backend="onnxruntime", threads=1)
    manifest = restorer.bundle.manifest
    student = load_student(EMBEDDED / "student.safetensors").eval()

    @torch.no_grad()
    def whole_frame(picture: Array) -> Array:
        current = torch.from_numpy(picture.transpose(2, 0, 1)[None].copy())
        encoded = student.encode(current)
        assessment = encoded.assessment[0].double()
        gates = route(manifest.routing, float(assessment[1]), assessment[2:].tolist())
        weights = torch.from_numpy(gate_tensor(manifest.routing, gates, manifest.student.rank))
        restored, _ = student.refine(current, encoded, encoded, weights)
        return np.clip(restored[0].numpy().transpose(1, 2, 0), 0, 1)

    apart, border = f"{'apart':>16}{'median (quarters)':>28}", f"{'border':>9}{'elsewhere':>11}"
    print(f"{'':<16}{'tiled dB':>10}{'whole dB':>10}{apart}{border}   (of 255)")
    for kind in ({"haze": 0.5}, {"haze": 0.8}, {"low_light": 0.5}, {"low_light": 0.8}):
        rows = []
        for index, clean in enumerate(squares(folder, side)):
            degraded = degrade(clean, kind, seed=index)
            pixels = np.rint(degraded * 255).astype(np.uint8)
            tiled = restorer.restore(pixels, max_iterations=1, min_iterations=1, rollback=False).picture.rgb
            whole = whole_frame(degraded)
            plan = plan_tiles(side, side, manifest.tile)
            rows.append((psnr(tiled, clean), psnr(whole, clean), *steps(tiled - whole, plan)))
        name = " ".join(f"{k} {v}" for k, v in kind.items())
        mean = np.mean(rows, axis=0)
        differences = np.array([tiled - whole for tiled, whole, *_ in rows])
        low, middle, high = np.percentile(differences, (25, 50, 75))
        apart = f"{differences.mean():+.2f} ± {differences.std(ddof=1) / len(rows) ** 0.5:.2f}"
        quarters = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
        border = f"{mean[2] * 255:>9.2f}{mean[3] * 255:>11.2f}"
        print(f"{name:<16}{mean[0]:>10.2f}{mean[1]:>10.2f}{apart:>16}{quarters:>28}{border}", flush=True)


def squares(folder: Path, side: int) -> Iterator[Array]:
    """Photographs as squares, enlarged where they are smaller."""
    for path in list_pictures(folder):
        image = Image.fromarray(read(path).pixels)
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        square = image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.LANCZOS)
        yield np.asarray(square, np.float32) / 255


def steps(difference: Array, plan: TilePlan) -> tuple[float, float]:
    """Mean absolute step across tiles' edges, and across lines 37 pixels beside them, where no tile begins or ends."""

    def across(field: Array, lines: list[int]) -> list[float]:
        found = []
        for line in lines:
            before, after = field[line - 8 : line].mean(axis=0), field[line : line + 8].mean(axis=0)
            count = len(before) // 64
            found += np.abs((after - before)[: count * 64].reshape(count, 64, 3).mean(axis=1)).ravel().tolist()
        return found

    at_border, elsewhere = [], []
    for field, starts, length in (
        (difference, plan.rows, plan.height),
        (difference.transpose(1, 0, 2), plan.columns, plan.width),
    ):
        edges = sorted({e for s in starts for e in (s, s + plan.tile) if 8 <= e <= length - 8})
        beside = [e + 37 for e in edges if e + 45 < length and all(abs(e + 37 - o) > 12 for o in edges)]
        at_border += across(field, edges)
        elsewhere += across(field, beside)
    return float(np.mean(at_border)), float(np.mean(elsewhere))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("guided", "borders"))
    parser.add_argument("photos", nargs="?", type=Path, default=PHOTOS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()
    if arguments.what == "guided":
        guided(arguments.photos, arguments.seeds)
    else:
        borders(arguments.photos, arguments.side)


if __name__ == "__main__":
    main()
