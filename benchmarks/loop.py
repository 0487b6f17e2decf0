"""Does encoding the original once pay what it should? The runtime's loop against calling everything anew each time.

    taskset -c 0 python benchmarks/loop.py [PHOTO] [--rounds 20] [--iterations 4] [--backend onnxruntime]

n iterations of the runtime, all its bookkeeping included, cost n (e + r) by the measured e and r; encoding the original,
encoding the estimate and refining each time n (2e + r). Both take turns with the two methods alone, one behind the other as
they are used. Medians of CPU time, one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from burnish.distill.degradations import degrade
from burnish.runtime import Picture, Restorer
from burnish.runtime.pictures import read
from burnish.runtime.routing import gate_tensor, route
from burnish.runtime.tiles import from_program, to_program

PHOTO = Path(__file__).parents[1] / "recipes" / "photos" / "eval" / "kodim23.png"


def main() -> None:
    """Print both ratios, measured and predicted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--backend", default="onnxruntime")
    arguments = parser.parse_args()
    restorer = Restorer.load(backend=arguments.backend, threads=1)
    tile, count = restorer.bundle.manifest.tile, arguments.iterations
    pixels = Picture(degrade(read(arguments.photo).rgb[:tile, :tile], {"rain": 0.6, "haze": 0.4}, seed=7)).pixels
    session, routing, rank = restorer._engine.session, restorer._engine.routing, restorer._engine.rank
    planes = to_program(pixels, tile)
    encoded = session.encode(planes)
    gates = gate_tensor(routing, route(routing, encoded.granularity, encoded.logits), rank)

    def loop() -> None:
        restorer.restore(pixels, max_iterations=count, min_iterations=count, rollback=False)

    def anew() -> None:
        current = pixels
        for _ in range(count):
            original, source = session.encode(to_program(pixels, tile)), to_program(current, tile)
            estimate = session.encode(source)
            opened = gate_tensor(routing, route(routing, estimate.granularity, estimate.logits), rank)
            current = from_program(session.refine(source, original, estimate, opened)[0], current)

    times: dict[str, list[float]] = {"encode": [], "refine": [], "loop": [], "anew": []}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        times[name].append((time.process_time() - began) * 1e3)

    loop()
    anew()
    for _ in range(arguments.rounds):
        for _ in range(count):
            timed("encode", lambda: session.encode(planes))
            timed("refine", lambda: session.refine(planes, encoded, encoded, gates))
        timed("loop", loop)
        timed("anew", anew)
    e, r, once, each = (statistics.median(values) for values in times.values())
    predicted, measured = (2 * e + r) / (e + r), each / once
    print(f"{restorer.program.name} on {restorer.backend}, {tile}², {count} iterations, {arguments.rounds} rounds")
    print(f"encode {e:.1f} ms, refine {r:.1f} ms; the loop {once:.1f} ms, anew {each:.1f} ms")
    print(f"ratio {measured:.3f}, predicted {predicted:.3f}: {100 * measured / predicted:.1f} %")


if __name__ == "__main__":
    main()
