"""Do deadlines hold, and is the time used? Budgets from the p99 of a first result up to 8 iterations, one core kept busy.

    python benchmarks/deadline.py [PHOTO] [--runs 3000] [--backend onnxruntime] [--threads 1] [--quiet]

Another process computes half of the time on the core that this one runs on. The picture is one tile, the budget uniform in its
range. `unused`: time left at the end by the budget, in runs where another step of the usual length would have fitted, 0 in the
others. `bookkeeping`: CPU time of everything that is neither the program nor putting pixels in and out.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from burnish.distill.degradations import degrade
from burnish.runtime import Picture, Restorer
from burnish.runtime.pictures import read

PHOTO = Path(__file__).parents[1] / "recipes" / "photos" / "eval" / "kodim23.png"
# No early stop by quality: the budget alone decides.
FREE = {"min_gain": -1.0, "rollback": False}
BUSY = """
import random, time
while True:
    until = time.perf_counter() + random.uniform(0.05, 1.0)
    while time.perf_counter() < until: pass
    time.sleep(random.uniform(0.05, 1.0))
"""


def main() -> None:
    """Print how often deadlines held, by how much they were missed, and what was left unused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="no other process on this core")
    arguments = parser.parse_args()
    core = min(os.sched_getaffinity(0)) if len(os.sched_getaffinity(0)) == 1 else max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    rgb = read(arguments.photo).rgb
    restorer = Restorer.load(backend=arguments.backend, threads=arguments.threads)
    tile = restorer.bundle.manifest.tile
    picture = Picture(degrade(rgb[:tile, :tile], {"rain": 0.6, "haze": 0.4}, seed=7))
    busy = None if arguments.quiet else subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        measure(restorer, picture, arguments.runs)
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()


def measure(restorer: Restorer, picture: Picture, runs: int) -> None:
    first = sorted(restorer.restore(picture, max_iterations=1, min_iterations=1, **FREE).elapsed_ms for _ in range(100))
    low, step = first[98], statistics.median(first)
    high = 8 * step
    rng = random.Random(0)
    late: list[float] = []
    unused: list[float] = []
    iterations: Counter[int] = Counter()
    began = time.perf_counter()
    for _ in range(runs):
        budget = rng.uniform(low, max(low, high))
        called = time.perf_counter()
        result = restorer.restore(picture, budget_ms=budget, max_iterations=50, **FREE)
        left = budget - (time.perf_counter() - called) * 1e3
        late.append(-left)
        unused.append(left / budget if left >= step else 0.0)
        iterations[result.iteration] += 1
    held = sum(ms <= 0 for ms in late)
    misses = sorted(ms for ms in late if ms > 0)
    took, side = time.perf_counter() - began, picture.pixels.shape[0]
    print(f"{restorer.program.name} on {restorer.backend}, {side}², {runs} runs in {took:.0f} s")
    print(f"first result: median {step:.1f} ms, p99 {low:.1f} ms; budgets {low:.0f} to {high:.0f} ms")
    print(
        f"held: {held}/{runs} = {100 * held / runs:.2f} %; worst misses in ms: {[round(ms, 2) for ms in misses[-5:]]}"
    )
    print(f"unused: median {100 * statistics.median(unused):.1f} %, mean {100 * statistics.mean(unused):.1f} %")
    print(f"iterations: {dict(sorted(iterations.items()))}")
    print(f"bookkeeping: {bookkeeping_ms(restorer, picture):.3f} ms of CPU a refine")


def bookkeeping_ms(restorer: Restorer, picture: Picture, iterations: int = 50) -> float:
    """CPU milliseconds of this thread a refine: decisions, routing, trace, hand-over; the program runs in another thread."""
    samples = []
    for _ in range(9):
        began = time.thread_time()
        restorer.restore(picture, max_iterations=iterations, **FREE)
        samples.append((time.thread_time() - began) * 1e3 / iterations)
    return float(np.min(samples))


if __name__ == "__main__":
    main()
