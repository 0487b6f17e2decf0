"""CPU time from nothing to the runtime's import, and to the first picture; resident memory then.

    taskset -c 0 python benchmarks/cold.py [PHOTO] [--runs 9] [--backend onnxruntime]

Each run is a process of its own: import, load (no warm-up), read the photograph, one iteration of one tile. Python's own start
is not counted. Medians; wall time stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "recipes" / "photos" / "eval" / "kodim23.png"
CHILD = """
import json, resource, sys, time
cpu, wall = time.process_time(), time.perf_counter()
def row():
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall,
            "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
import burnish.runtime
from burnish.runtime import Restorer
imported = row()
restorer = Restorer.load(backend=sys.argv[2], threads=1, warm_up=False)
loaded = row()
from burnish.runtime.pictures import read
tile = restorer.bundle.manifest.tile
result = restorer.restore(read(__import__("pathlib").Path(sys.argv[1])).pixels[:tile, :tile], max_iterations=1,
                          rollback=False)
assert result.iteration == 1
print(json.dumps({"import": imported, "load": loaded, "first picture": row()}))
"""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--backend", default="onnxruntime")
    arguments = parser.parse_args()
    rows = []
    for _ in range(arguments.runs):
        command = [sys.executable, "-c", CHILD, str(arguments.photo), arguments.backend]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    print(f"{'until':<16}{'CPU s':>8}{'wall s':>8}{'MiB':>6}")
    for name in rows[0]:
        middle = {key: statistics.median(row[name][key] for row in rows) for key in ("cpu", "wall", "mib")}
        print(f"{name:<16}{middle['cpu']:>8.2f}{middle['wall']:>8.2f}{middle['mib']:>6.0f}")


if __name__ == "__main__":
    main()
