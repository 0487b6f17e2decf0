"""Anytime curves: PSNR against milliseconds, of single tiles and of large pictures.

    taskset -c 0 python benchmarks/anytime.py [PHOTOS] [--backend onnxruntime --backend executorch] [--svg docs/anytime.svg]

Single: a tile of each photograph under five conditions, PSNR after every iteration. Large: photographs enlarged to 1536 pixels
whose degradation varies over the frame (as in tiles.py), after every refine, quality-guided. No early stop, no roll-back. Time
is CPU time of this process, one thread, everything in it; means over pictures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from burnish.device_tests.metrics import psnr
from burnish.distill.data import list_pictures
from burnish.distill.degradations import degrade
from burnish.runtime import Restorer
from burnish.runtime.pictures import read
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiles import varied

PHOTOS = Path(__file__).parents[1] / "recipes" / "photos" / "eval"
CONDITIONS = {
    "noise": {"gaussian_noise": 0.5},
    "rain": {"rain": 0.7},
    "haze": {"haze": 0.7},
    "low light": {"low_light": 0.7},
    "rain and haze": {"rain": 0.6, "haze": 0.5},
}
FREE = {"min_gain": -1.0, "rollback": False, "max_iterations": 4}
# Shares of the time that one iteration of every tile takes.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
Array = NDArray[np.float32]
Curve = list[tuple[float, float]]


def curve(restorer: Restorer, degraded: Array, clean: Array, **options: object) -> Curve:
    """(CPU milliseconds, PSNR) at the start and after every refine; measuring the PSNR is not counted."""
    points: Curve = [(0.0, psnr(degraded, clean))]
    pixels = np.rint(degraded * 255).astype(np.uint8)
    spent, began = 0.0, time.process_time()
    for update in restorer.stream(pixels, **FREE, **options):  # type: ignore[arg-type]
        spent += time.process_time() - began
        points.append((spent * 1e3, psnr(update.pixels.astype(np.float32) / 255, clean)))
        began = time.process_time()
    return points


def single(restorer: Restorer, folder: Path) -> dict[str, Curve]:
    """Of every condition, the mean curve over the photographs."""
    tile = restorer.bundle.manifest.tile
    found: dict[str, Curve] = {}
    for name, kinds in CONDITIONS.items():
        curves = []
        for index, path in enumerate(list_pictures(folder)):
            clean = read(path).rgb[100 : 100 + tile, 100 : 100 + tile]
            curves.append(curve(restorer, degrade(clean, kinds, seed=index), clean, min_iterations=4))
        found[name] = [tuple(np.mean(points, axis=0)) for points in zip(*curves, strict=True)]
    return found


def large(restorer: Restorer, folder: Path) -> Curve:
    """The mean curve over the photographs, at shares of the first round's time."""
    rows = []
    for index, path in enumerate(list_pictures(folder)):
        image = Image.fromarray(read(path).pixels)
        scale = 1536 / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        clean = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32) / 255
        points = curve(restorer, varied(clean, index), clean)
        tiles = restorer.stream(np.rint(clean * 255).astype(np.uint8), max_iterations=0).result.tiles
        first = points[tiles][0]
        rows.append([(share * first, at(points, share * first)) for share in SHARES])
    return [tuple(np.mean(points, axis=0)) for points in zip(*rows, strict=True)]


def at(points: Curve, when: float) -> float:
    """PSNR of what is there at a time."""
    return [value for ms, value in points if ms <= when][-1]


def draw(path: Path, found: Sequence[tuple[str, dict[str, Curve], Curve]]) -> None:
    """Two panels: single tiles of the first backend's conditions for each backend, and large pictures."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(
        {"font.size": 9, "svg.hashsalt": "burnish", "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    for style, (name, tiles, whole) in zip(("-", "--", ":"), found, strict=False):
        for colour, (condition, points) in enumerate(tiles.items()):
            label = condition if style == "-" else None
            axes[0].plot(*zip(*points, strict=True), style, color=f"C{colour}", marker="o", markersize=3, label=label)
        axes[1].plot(*zip(*whole, strict=True), style, color="black", marker="o", markersize=3, label=name)
    axes[0].set(title="one tile, after each iteration", xlabel="milliseconds", ylabel="PSNR, dB")
    axes[1].set(title="1536 pixels, guided", xlabel="milliseconds")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print tables; draw them when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, default=PHOTOS)
    parser.add_argument("--backend", action="append")
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    found = []
    for backend in arguments.backend or ["onnxruntime"]:
        restorer = Restorer.load(backend=backend, threads=1)
        name = f"{restorer.program.name}, {backend}"
        tiles, whole = single(restorer, arguments.photos), large(restorer, arguments.photos)
        found.append((name, tiles, whole))
        print(name)
        for condition, points in tiles.items():
            print(f"  {condition:<15}" + "".join(f"{ms:>7.0f} ms {value:5.2f} dB" for ms, value in points))
        print(f"  {'large':<15}" + "".join(f"{ms:>7.0f} ms {value:5.2f} dB" for ms, value in whole))
    if arguments.svg is not None:
        draw(arguments.svg, found)


if __name__ == "__main__":
    main()
