"""Does the assessment mean something? Order and stops by predicted quality, and degradations found.

    python benchmarks/assessment.py PHOTOS [--pictures N] [--tiles 2] [--iterations 4] [--min-gain 0.001]
        [--bundle BUNDLE] [--program onnx-fp32]

Single tiles of clean photographs under every condition of the protocol, run for all iterations. *Order*: of two steps of one
trajectory that differ by more than 0.1 dB, how often the better one is predicted: the later by what refine predicted of it, the
earlier by what encode said of it, as the controller compares them. *Stop*: PSNR of what the controller keeps with its default
policy but for `--min-gain`, and after how many iterations it stops, against every fixed number of iterations and the best stop
there was, at most 50 dB counted.
*Found*: the likeliest leaf of singles; how many of a mixture's leaves are above one half; clean pictures with none above.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from burnish.device_tests.decisions import replay
from burnish.device_tests.metrics import from_pixels, psnr, to_pixels
from burnish.device_tests.protocol import Condition, degraded, load_protocol, read_clean
from burnish.device_tests.trajectory import run_session
from burnish.distill.data import list_pictures
from burnish.distill.degradations import KINDS
from burnish.runtime import Bundle, backends
from burnish.runtime.backends import Session
from burnish.runtime.bundle import EMBEDDED
from burnish.runtime.controller import LEAST_GAIN, Policy
from burnish.runtime.quality import quality_to_psnr
from burnish.runtime.routing import sigmoid
from burnish.runtime.tiles import cut, plan_tiles, to_program
from rich.progress import track

APART_DB = 0.1
MOST_DB = 50.0


class Row(NamedTuple):
    """One tile under one condition."""

    true_db: tuple[float, ...]  # of the input and of every iteration, at most MOST_DB
    assessed_db: tuple[float, ...]  # by encode, of all but the last
    predicted_db: tuple[float, ...]  # by refine, of all but the input
    kept: int
    stop: int
    beliefs: dict[str, float]
    leaves: frozenset[str]


def run(session: Session, bundle: Bundle, condition: Condition, name: str, clean: np.ndarray, policy: Policy) -> Row:
    """Degrade a tile, restore it, and note what was said of it, and which iteration `policy` keeps."""
    manifest = bundle.manifest
    picture = degraded(condition, name, clean)
    trajectory = run_session(session, manifest.routing, manifest.student.rank, picture, policy.max_iterations)
    logits = session.encode(to_program(to_pixels(picture), manifest.tile)).logits
    (outcome,) = replay(trajectory, policy)
    shown = (from_pixels(to_pixels(picture)), *trajectory.pictures)
    return Row(
        tuple(min(MOST_DB, psnr(x, clean)) for x in shown),
        *(tuple(map(quality_to_psnr, said)) for said in trajectory.qualities[0][:2]),
        outcome.kept,
        outcome.stop,
        dict(zip(manifest.routing.leaves, map(sigmoid, logits), strict=True)),
        frozenset(KINDS[kind].leaf for kind in condition.severities),
    )


def ordered(rows: list[Row]) -> tuple[int, int]:
    """How many pairs of steps are in the right order, and how many pairs there are."""
    right = total = 0
    for row in rows:
        for a, b in combinations(range(len(row.true_db)), 2):
            change = row.true_db[b] - row.true_db[a]
            if abs(change) > APART_DB:
                total += 1
                right += (row.predicted_db[b - 1] > row.assessed_db[a]) == (change > 0)
    return right, total


def show_found(rows: list[Row]) -> None:
    """Top-1 of singles, recall of mixtures, and clean pictures called clean."""
    clean, singles = ([r for r in rows if len(r.leaves) == count] for count in (0, 1))
    mixed = [r for r in rows if len(r.leaves) > 1]
    if singles:
        top = mean(max(r.beliefs, key=lambda leaf: r.beliefs[leaf]) in r.leaves for r in singles)
        print(f"singles: likeliest leaf right {top:.1%}")
    if mixed:
        print(f"mixtures: leaves found {mean(r.beliefs[leaf] > 0.5 for r in mixed for leaf in r.leaves):.1%}")
    if clean:
        print(f"clean called clean {mean(max(r.beliefs.values()) <= 0.5 for r in clean):.1%}")


def main() -> None:
    """Print a row a group of conditions, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--tiles", type=int, default=2, help="of each photograph, spread over it")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--min-gain", type=float, default=LEAST_GAIN, help="of the policy whose stops are judged")
    parser.add_argument("--bundle", type=Path, default=EMBEDDED)
    parser.add_argument("--program", default="onnx-fp32")
    arguments = parser.parse_args()
    policy = Policy(max_iterations=arguments.iterations, min_gain=arguments.min_gain)
    bundle = Bundle.open(arguments.bundle)
    backend, program = backends.choose(bundle, "auto", arguments.program)
    session = backends.load(bundle, backend, program, 1)
    groups: dict[str, list[Row]] = defaultdict(list)
    photos = list_pictures(arguments.photos)[: arguments.pictures]
    for path in track(photos, "photographs"):
        rgb = read_clean(path)
        plan = plan_tiles(rgb.shape[0], rgb.shape[1], bundle.manifest.tile)
        for index in {round(i) for i in np.linspace(0, len(plan) - 1, arguments.tiles)}:
            clean = np.ascontiguousarray(cut(rgb, plan, index)[0].transpose(1, 2, 0))
            for condition in load_protocol().conditions:
                row = run(session, bundle, condition, f"{path.name}/{index}", clean, policy)
                groups[condition.group].append(row)
    rows = [row for found in groups.values() for row in found]
    print(f"{program.name}, {len(photos)} photographs, {len(rows)} tiles")
    steps = "".join(f"{n:>8}" for n in range(arguments.iterations + 1))
    print(f"{'':<10}{'order':>8}{'error':>8}{'stop':>8}{'kept':>8}{'best':>8}   PSNR after{steps} iterations")
    for group, found in {**groups, "all": rows}.items():
        right, total = ordered(found)
        error = mean(abs(t - s) for r in found for t, s in zip(r.true_db[1:], r.predicted_db, strict=True))
        kept, best = mean(r.true_db[r.kept] for r in found), mean(max(r.true_db) for r in found)
        fixed = "".join(f"{mean(r.true_db[n] for r in found):>8.2f}" for n in range(arguments.iterations + 1))
        stop = mean(r.stop for r in found)
        print(
            f"{group:<10}{right / max(total, 1):>8.1%}{error:>8.2f}{stop:>8.2f}{kept:>8.2f}{best:>8.2f}{'':>13}{fixed}"
        )
    show_found(rows)


if __name__ == "__main__":
    main()
