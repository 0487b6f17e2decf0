"""A sheet to look at: photographs of a folder as they are and after each iteration, side by side.

    python benchmarks/contact_sheet.py PHOTOS SHEET.png [--iterations 2] [--height 360] [--bundle BUNDLE] [--program onnx-fp32]
                                       [--condition rain-heavy] [--pictures 6]

With a condition the photographs are clean and are degraded by the protocol. Iterations are forced, so that each is seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from burnish.device_tests.metrics import to_pixels
from burnish.device_tests.protocol import Array, degraded, load_protocol, read_clean
from burnish.device_tests.trajectory import run_restorer
from burnish.distill.data import list_pictures
from burnish.runtime import Restorer
from burnish.runtime.bundle import EMBEDDED
from PIL import Image


def shrunk(rgb: Array, height: int) -> Image.Image:
    """A picture at the sheet's height; never enlarged."""
    image = Image.fromarray(to_pixels(rgb))
    scale = min(1.0, height / image.height)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the sheet: a row a photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--bundle", type=Path, default=EMBEDDED)
    parser.add_argument("--program", default="onnx-fp32")
    parser.add_argument("--condition")
    parser.add_argument("--pictures", type=int)
    arguments = parser.parse_args()
    conditions = {condition.name: condition for condition in load_protocol().conditions}
    restorer = Restorer.load(arguments.bundle, program=arguments.program)
    rows = []
    for path in list_pictures(arguments.photos)[: arguments.pictures]:
        picture = read_clean(path)
        if arguments.condition is not None:
            picture = degraded(conditions[arguments.condition], path.name, picture)
        steps = (picture, *run_restorer(restorer, picture, arguments.iterations).pictures)
        rows.append(np.concatenate([np.asarray(shrunk(step, arguments.height)) for step in steps], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    Image.fromarray(np.concatenate(padded)).save(arguments.sheet)


if __name__ == "__main__":
    main()
