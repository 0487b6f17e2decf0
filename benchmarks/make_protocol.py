"""Writes benchmarks/protocol.json: python benchmarks/make_protocol.py NAME=FOLDER …

Conditions may be added behind the others, under a new version; what is there stays as it is.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from burnish.device_tests.protocol import Condition, PictureSet, Protocol, degraded, read_clean

LIGHT, HEAVY = 0.35, 0.8
SINGLES = ("poisson_noise", "motion_blur", "defocus_blur", "rain", "snow", "haze", "low_light")
DOUBLES = (
    {"haze": 0.5, "gaussian_noise": 0.4},
    {"rain": 0.5, "haze": 0.5},
    {"snow": 0.6, "haze": 0.4},
    {"snow": 0.6, "jpeg": 0.6},
    {"rain": 0.6, "gaussian_noise": 0.3},
    {"low_light": 0.6, "gaussian_noise": 0.2},
    {"low_light": 0.5, "motion_blur": 0.5},
    {"defocus_blur": 0.5, "gaussian_noise": 0.3},
)
TRIPLES = (
    {"haze": 0.5, "rain": 0.5, "gaussian_noise": 0.3},
    {"low_light": 0.5, "motion_blur": 0.4, "gaussian_noise": 0.2},
    {"snow": 0.5, "haze": 0.4, "jpeg": 0.6},
    {"rain": 0.5, "low_light": 0.5, "jpeg": 0.5},
)


def conditions() -> list[Condition]:
    """Clean, singles (noise σ 15, 25, 50; the others light and heavy; JPEG at quality 50 and 20), mixtures, what was added."""
    rows = [Condition(name="clean", group="clean", severities={})]
    rows += [_noise(sigma) for sigma in (15, 25, 50)]
    for name, severity in (("jpeg-light", 0.5), ("jpeg-heavy", 0.875)):
        rows.append(Condition(name=name, group="single", severities={"jpeg": severity}))
    rows += _light_and_heavy(SINGLES)
    for group, mixtures in (("double", DOUBLES), ("triple", TRIPLES)):
        for mixture in mixtures:
            rows.append(Condition(name="+".join(mixture).replace("_", "-"), group=group, severities=mixture))
    # Of version 2, behind those that were there.
    return [*rows, _noise(5), *_light_and_heavy(("camera_noise",))]


def _noise(sigma: int) -> Condition:
    return Condition(name=f"noise-{sigma}", group="single", severities={"gaussian_noise": sigma / 50})


def _light_and_heavy(kinds: tuple[str, ...]) -> list[Condition]:
    return [
        Condition(name=f"{kind.replace('_', '-')}-{label}", group="single", severities={kind: severity})
        for kind in kinds
        for label, severity in (("light", LIGHT), ("heavy", HEAVY))
    ]


def main() -> None:
    """Measure the input PSNR of every condition on the given sets and write the file."""
    rows = conditions()
    sets: dict[str, PictureSet] = {}
    for argument in sys.argv[1:]:
        name, folder = argument.split("=")
        paths = sorted(Path(folder).glob("*.png"))
        sums = {row.name: 0.0 for row in rows}
        for path in paths:
            clean = read_clean(path)
            for row in rows:
                error = float(np.mean((degraded(row, path.name, clean) - clean) ** 2))
                sums[row.name] += (100.0 if error < 1e-10 else -10 * np.log10(error)) / len(paths)
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        sets[name] = PictureSet(files=hashes, input_psnr={k: round(v, 3) for k, v in sums.items()})
    protocol = Protocol(version=2, conditions=tuple(rows), sets=sets, sha256="")
    protocol = protocol.model_copy(update={"sha256": protocol.digest()})
    Path(__file__).with_name("protocol.json").write_text(protocol.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
