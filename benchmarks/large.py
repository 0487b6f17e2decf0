"""A 12-megapixel photograph: memory, progress, and how soon cancelling ends it.

    taskset -c 0 python benchmarks/large.py [PHOTO] [--megapixels 12] [--backend onnxruntime] [--feature-memory-mb 192]

A photograph is enlarged to 4:3 and degraded, and one iteration of every tile is done in this process; then again, cancelled
after a third. Memory is resident at most (VmHWM), before and after, with Python, libraries and the picture itself.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from burnish.runtime import Restorer
from burnish.runtime.pictures import read
from PIL import Image

PHOTO = Path(__file__).parents[1] / "recipes" / "photos" / "eval" / "kodim23.png"


def resident_mib() -> float:
    """At most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print memory, time and steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--feature-memory-mb", type=float, default=192.0)
    arguments = parser.parse_args()
    width = round((arguments.megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(arguments.megapixels * 1e6 / width)
    pixels = np.asarray(Image.fromarray(read(arguments.photo).pixels).resize((width, height), Image.Resampling.LANCZOS))
    # Haze and noise, in 8 bits a band at a time, so that degrading is not what takes the memory.
    rng = np.random.default_rng(0)
    degraded = np.empty_like(pixels)
    for top in range(0, height, 128):
        band = 0.6 * pixels[top : top + 128] + 80 + rng.normal(0, 10, pixels[top : top + 128].shape)
        degraded[top : top + 128] = np.clip(band, 0, 255)
    del pixels
    restorer = Restorer.load(backend=arguments.backend, feature_memory_mb=arguments.feature_memory_mb)
    before = resident_mib()
    began, seen = time.perf_counter(), []
    stream = restorer.stream(degraded, max_iterations=1, min_gain=-1.0, rollback=False)
    seen.extend(update.elapsed_ms for update in stream)
    result = stream.result
    gaps = np.diff([0.0, *seen])
    took = time.perf_counter() - began
    print(f"{width}×{height}, {result.tiles} tiles, {restorer.program.name} on {restorer.backend}")
    print(f"whole pass: {took:.1f} s, {len(seen)} updates, {np.median(gaps):.0f} ms apart, {gaps.max():.0f} at most")
    print(f"resident at most: {before:.0f} MiB before, {resident_mib():.0f} MiB after")

    stream = restorer.stream(degraded, max_iterations=1, min_gain=-1.0, rollback=False)
    for count, _ in enumerate(stream, 1):
        if count == result.tiles // 3:
            steps, asked = len(stream.result.trace), time.perf_counter()
            stream.cancel()
    ended = (time.perf_counter() - asked) * 1e3
    more = len(stream.result.trace) - steps
    print(
        f"cancelled after {count} tiles: ended {ended:.1f} ms and {more} steps later, reason {stream.result.reason.value}"
    )


if __name__ == "__main__":
    main()
