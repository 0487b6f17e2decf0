"""One table of quality: input, what a user would otherwise pick, the student iteration by iteration, a teacher's rounds.

    python benchmarks/quality.py PHOTOS [--pictures N] [--condition NAME …] [--pairs NAME=DEGRADED:CLEAN …]
                                 [--bundle BUNDLE] [--program onnx-fp32] [--iterations 4] [--student NAME=FILE …]
                                 [--teacher FILE] [--out quality.json]

PHOTOS are clean and are degraded by the protocol; pairs are real ones. Other students (a one-step student, another size) are
full-precision weights. PSNR in dB, SSIM of luma, HaarPSI (Reisenhofer et al. 2018, a perceptual measure without weights).
Classical methods run with one setting each: what a user has who does not know what is wrong with the picture.
Needs `pip install 'burnish[bench]'`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from burnish.device_tests.eager import EagerSession
from burnish.device_tests.metrics import View, compare, from_pixels, to_pixels
from burnish.device_tests.pairs import Pair, PairSet, find_pairs
from burnish.device_tests.protocol import Array, Condition, load_protocol
from burnish.device_tests.trajectory import run_restorer, run_teacher
from burnish.distill.data import list_pictures, to_tensor
from burnish.distill.weights import load_student, load_teacher
from burnish.runtime import Bundle, Restorer
from burnish.runtime.bundle import EMBEDDED, Program
from rich.progress import track


class Scores(NamedTuple):
    """Of one picture against the truth."""

    psnr: float
    ssim: float
    haarpsi: float


def denoised(rgb: Array) -> Array:
    """Non-local means (Buades et al. 2005), at OpenCV's strength for visible noise."""
    return from_pixels(cv2.fastNlMeansDenoisingColored(to_pixels(rgb), None, 10, 10, 7, 21))


def smoothed(rgb: Array) -> Array:
    """Bilateral filter: noise and blocks away, edges kept."""
    return from_pixels(cv2.bilateralFilter(to_pixels(rgb), 7, 30, 5))


def equalised(rgb: Array) -> Array:
    """CLAHE of lightness: the usual remedy for dark and flat pictures."""
    lab = cv2.cvtColor(to_pixels(rgb), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(lab[..., 0])
    return from_pixels(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def sharpened(rgb: Array) -> Array:
    """Unsharp mask."""
    return np.clip(rgb + 1.0 * (rgb - cv2.GaussianBlur(rgb, (0, 0), 2.0)), 0, 1)


def dehazed(rgb: Array, patch: int = 15, strength: float = 0.95, least: float = 0.1) -> Array:
    """Dark channel prior (He et al. 2009), transmission smoothed by a guided filter."""
    kernel = np.ones((patch, patch), np.uint8)
    dark = cv2.erode(rgb.min(axis=2), kernel)
    brightest = np.argsort(dark, axis=None)[-max(1, dark.size // 1000) :]
    air = rgb.reshape(-1, 3)[brightest].mean(axis=0)
    transmission = 1 - strength * cv2.erode((rgb / np.maximum(air, 0.05)).min(axis=2), kernel)
    transmission = _guided(rgb.mean(axis=2), transmission, 40, 1e-3)[..., None]
    return np.clip((rgb - air) / np.maximum(transmission, least) + air, 0, 1).astype(np.float32)


def _guided(guide: Array, values: Array, radius: int, epsilon: float) -> Array:
    """Guided filter (He et al. 2010) by box means."""

    def mean(x: Array) -> Array:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1))

    variance = mean(guide * guide) - mean(guide) ** 2
    slope = (mean(guide * values) - mean(guide) * mean(values)) / (variance + epsilon)
    return mean(slope) * guide + mean(mean(values) - slope * mean(guide))


CLASSICAL: dict[str, Callable[[Array], Array]] = {
    "non-local means": denoised,
    "bilateral": smoothed,
    "CLAHE": equalised,
    "unsharp mask": sharpened,
    "dark channel": dehazed,
}


def haarpsi(picture: Array, truth: Array) -> float:
    """HaarPSI of pictures in [0, 1]."""
    import piq  # imports torchvision, which burnish.distill prepares for a torch without its operators

    first, second = (to_tensor(x)[None] for x in (picture, truth))
    return float(piq.haarpsi(first, second, data_range=1.0))


def scores(picture: Array, truth: View) -> Scores:
    """Every measure, of what a person gets to see of `picture`."""
    shown = View.shown(picture)
    found = compare(shown, truth)
    return Scores(found.psnr, found.ssim, haarpsi(shown.rgb, truth.rgb))


def restorers(arguments: argparse.Namespace) -> dict[str, Restorer]:
    """The bundle's program, and other students in full precision."""
    bundle = Bundle.open(arguments.bundle)
    found = {"student": Restorer.load(arguments.bundle, program=arguments.program)}
    for name, file in (entry.split("=", 1) for entry in arguments.student):
        session = EagerSession(load_student(Path(file)))
        found[name] = Restorer(bundle, Program(target=name, precision="fp32", files=()), "eager", session)
    return found


def pair_sets(arguments: argparse.Namespace) -> Iterator[PairSet]:
    """The protocol's conditions on the photographs, then real pairs, matched by their order."""
    if arguments.photos is not None:
        yield from find_pairs(arguments.photos, tuple(arguments.condition), arguments.pictures, load_protocol()).sets
    for name, folders in (entry.split("=", 1) for entry in arguments.pairs):
        degraded, clean = (list_pictures(Path(folder))[: arguments.pictures] for folder in folders.split(":", 1))
        if len(degraded) != len(clean):
            raise SystemExit(f"{name}: {len(degraded)} degraded and {len(clean)} clean pictures; expected pairs")
        yield PairSet(Condition(name=name, group="pairs", severities={}), tuple(clean), tuple(degraded))


def main() -> None:
    """Measure, print Markdown tables, and write every figure to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--condition", nargs="*", default=[])
    parser.add_argument("--pairs", nargs="*", default=[])
    parser.add_argument("--bundle", type=Path, default=EMBEDDED)
    parser.add_argument("--program", default="onnx-fp32")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--student", nargs="*", default=[])
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    students = restorers(arguments)
    teacher = None if arguments.teacher is None else load_teacher(arguments.teacher)
    sets = list(pair_sets(arguments))

    def candidates(pair: Pair) -> Iterator[tuple[str, Array]]:
        yield "input", pair.degraded
        for name, method in CLASSICAL.items():
            yield name, method(pair.degraded)
        for name, restorer in students.items():
            steps = run_restorer(restorer, pair.degraded, arguments.iterations).pictures
            yield from ((f"{name} {n}", picture) for n, picture in enumerate(steps, 1))
        if teacher is not None:
            rounds = run_teacher(teacher, pair.degraded, arguments.iterations).pictures
            yield from ((f"teacher {n}", picture) for n, picture in enumerate(rounds, 1))

    rows: dict[str, dict[str, list[Scores]]] = defaultdict(lambda: defaultdict(list))
    jobs = [(pairs, index) for pairs in sets for index in range(len(pairs.clean))]
    for pairs, index in track(jobs, "pictures"):
        pair = pairs.read(index)
        truth = View(pair.clean)
        for name, picture in candidates(pair):
            rows[pairs.condition.name][name].append(scores(picture, truth))
    means = {
        condition: {name: Scores(*np.mean(found, axis=0).tolist()) for name, found in by_name.items()}
        for condition, by_name in rows.items()
    }
    for group in sorted({p.condition.group for p in sets} - {"clean", "pairs"}):
        members = [means[p.condition.name] for p in sets if p.condition.group == group]
        means[f"mean of {group}"] = {n: Scores(*np.mean([m[n] for m in members], axis=0).tolist()) for n in members[0]}
    print_tables(means)
    if arguments.out is not None:
        content = {condition: {n: s._asdict() for n, s in found.items()} for condition, found in means.items()}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def print_tables(means: dict[str, dict[str, Scores]]) -> None:
    """A Markdown table a measure; of the classical methods the best for each condition, which nobody knows beforehand."""
    others = [name for name in next(iter(means.values())) if name not in ("input", *CLASSICAL)]
    for measure, digits in (("psnr", 2), ("ssim", 3), ("haarpsi", 3)):
        print(f"\n| {measure} | input | best classical | {' | '.join(others)} |")
        print("|---" * (3 + len(others)) + "|")
        for condition, found in means.items():
            best = max(CLASSICAL, key=lambda name: getattr(found[name], measure))
            cells = [f"{getattr(found[name], measure):.{digits}f}" for name in ("input", best, *others)]
            cells[1] += f" ({best})"
            print(f"| {condition} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
