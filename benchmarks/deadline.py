"""Do deadlines hold? A 500×500 photograph at 0.6, 1.5 and 3 times the cost of one iteration.

python benchmarks/deadline.py [PHOTO] [--runs 100] [--backend onnxruntime] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path

from burnish.distill.degradations import degrade
from burnish.runtime import Picture, Restorer
from burnish.runtime.pictures import read

PHOTO = Path(__file__).parents[1] / "recipes" / "photos" / "eval" / "kodim23.png"


def main() -> None:
    """Print, for each budget, how often it held, iterations done and why they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    picture = Picture(degrade(read(arguments.photo).rgb, {"rain": 0.6, "haze": 0.4}, seed=7))
    restorer = Restorer.load(backend=arguments.backend, threads=arguments.threads)
    # No early stop by quality: the budget alone decides.
    free = {"min_gain": -1.0, "rollback": False}
    costs = []
    for _ in range(5):
        result = restorer.restore(picture, max_iterations=1, min_iterations=1, **free)
        costs.append(result.elapsed_ms)
    cost = statistics.median(costs)
    print(f"{restorer.program.name} on {restorer.backend}, one iteration {cost:.0f} ms, {arguments.runs} runs a budget")
    print(f"{'budget':>14}{'held':>8}{'iterations':>16}{'reasons':>30}")
    for factor in (0.6, 1.5, 3.0):
        held, iterations, reasons = 0, Counter[int](), Counter[str]()
        for _ in range(arguments.runs):
            result = restorer.restore(picture, budget_ms=factor * cost, max_iterations=8, **free)
            held += result.elapsed_ms <= factor * cost
            iterations[result.iteration] += 1
            reasons[result.reason.value] += 1
        print(
            f"{factor:>5} × cost  {held:>5}/{arguments.runs:<4}{dict(sorted(iterations.items()))!s:>16}{dict(reasons)!s:>30}"
        )


if __name__ == "__main__":
    main()
