"""Is a profile of this machine to be relied on? The same profile several times, and the spread of int8 against float.

    python benchmarks/spread.py BUNDLE [--times 3] [--runs 50] [--program executorch-xnnpack]

Each time `burnish profile --device host` from nothing: blocks of runs in processes of their own, both programs taking turns.
The ratio is float by int8 at p50 of one encode and one refine; its spread the largest less the smallest, by the median.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from burnish.device_tests.profile import Plan, profile
from burnish.runtime.bundle import Bundle


def main() -> None:
    """Print every profile's p50 and the spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--program", default="executorch-xnnpack")
    arguments = parser.parse_args()
    names = (f"{arguments.program}-int8", f"{arguments.program}-fp32")
    plan = Plan(programs=names, threads=(1,), runs=arguments.runs)
    ratios = []
    for _ in range(arguments.times):
        with tempfile.TemporaryDirectory() as folder:
            (device,) = profile(Bundle.open(arguments.bundle), ["host"], plan, Path(folder), lambda *_: None).devices
        assert device.failure is None, device.failure
        times = {row.program: row.iteration.p50_ms for row in device.programs}
        ratios.append(times[names[1]] / times[names[0]])
        print(", ".join(f"{name} {times[name]:.2f} ms" for name in names), f": {ratios[-1]:.3f}", flush=True)
    spread = (max(ratios) - min(ratios)) / statistics.median(ratios)
    print(f"float by int8 at p50: median {statistics.median(ratios):.3f}, spread {100 * spread:.1f} %")


if __name__ == "__main__":
    main()
