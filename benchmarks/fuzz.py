"""Damaged pictures and manifests: no crash, no hang, no traceback, nothing written outside.

    python benchmarks/fuzz.py [--cases 20000] [--seed 0]

Half of the cases are picture files of every format, cut, flipped, spliced, grown, with lying sizes; they are read, and
restored where they can be read. Half are bundles whose manifest is damaged as text or as data. Anything but a result or
one of burnish's own errors of one line ends the run with the case's number and leaves its file in the working folder.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import signal
import struct
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import png
from burnish.runtime import Bundle, BurnishError, Restorer
from burnish.runtime.bundle import EMBEDDED, MANIFEST
from burnish.runtime.pictures import encode, from_array, read
from PIL import Image

LIMIT_S = 20
ODD: tuple[Any, ...] = (
    None,
    -1,
    0,
    1e308,
    2**70,
    "",
    "../../etc/passwd",
    "/tmp/x",
    [],
    {},
    [[]],
    "\x00",
    True,
    "a" * 10_000,
    1e-9,
)
# Small enough that a case takes milliseconds.
MOST_PIXELS = 4096


class Hang(Exception):
    """A case took longer than any should."""


def seeds(rng: random.Random) -> list[bytes]:
    """Whole picture files to damage."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 4), np.uint8)
    found = []
    for mode, kinds in (
        ("RGB", ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000")),
        ("RGBA", ("PNG", "WEBP", "TIFF")),
        ("L", ("PNG", "JPEG", "TIFF")),
        ("CMYK", ("JPEG", "TIFF")),
        ("P", ("PNG", "GIF")),
        ("1", ("PNG", "TIFF")),
        ("I;16", ("PNG", "TIFF")),
        ("F", ("TIFF",)),
    ):
        image = Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode if mode != "I;16" else "L")
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        for kind in kinds:
            stream = io.BytesIO()
            image.save(stream, kind)
            found.append(stream.getvalue())
    for alpha, grey in ((False, False), (True, False), (True, True)):
        stream = io.BytesIO()
        planes = (1 if grey else 3) + alpha
        make: Any = png.Writer
        rows = np.random.default_rng(1).integers(0, 65536, (11, 13 * planes)).tolist()
        make(13, 11, bitdepth=16, alpha=alpha, greyscale=grey, interlace=rng.random() < 0.5).write(stream, rows)
        found.append(stream.getvalue())
    deep = np.random.default_rng(1).integers(0, 65536, (11, 13, 4)).astype(np.uint16)
    found += [encode(from_array(deep[..., :planes]), ".tiff") for planes in (1, 3, 4)]
    found.append(b"P6 13 11 4095\n" + (deep[..., :3] >> 4).astype(">u2").tobytes())
    return found


def damage(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, splice, repeat, or claim another size."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(max(1, len(changed)))
        what = rng.randrange(7)
        if what == 0:
            del changed[at:]
        elif what == 1 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            changed[at : at + rng.randrange(8)] = rng.randbytes(rng.randrange(8))
        elif what == 3:
            changed[at:at] = changed[at : at + rng.randrange(64)] * rng.randrange(4)
        elif what == 4:
            changed[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 65536)))
        elif what == 5 and bytes(changed[:8]) == b"\x89PNG\r\n\x1a\n" and len(changed) > 33:
            # A header that lies, with a right checksum: what a decompression bomb looks like.
            head = struct.pack(">II", rng.choice((1, 13, 60_000, 2**31 - 1)), rng.choice((1, 11, 60_000)))
            changed[16:24] = head
            changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
        else:
            changed += rng.randbytes(rng.randrange(32))
    return bytes(changed)


def twist(value: Any, rng: random.Random) -> Any:
    """The same JSON with something in it replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        inner = {**value}
        if rng.random() < 0.15:
            del inner[key]
        elif rng.random() < 0.1:
            inner["unknown"] = rng.choice(ODD)
        else:
            inner[key] = twist(value[key], rng)
        return inner
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        return [*value[:index], twist(value[index], rng), *value[index + rng.randrange(2) :]]
    return rng.choice(ODD)


def picture_case(folder: Path, data: bytes, restorer: Restorer) -> str:
    file = folder / "case"
    file.write_bytes(data)
    picture = read(file)
    if picture.pixels.shape[0] * picture.pixels.shape[1] > MOST_PIXELS:
        return "read"
    restorer.restore(picture, max_iterations=1)
    return "restored"


def manifest_case(folder: Path, text: bytes) -> str:
    """Open a bundle with this manifest, check every file it names, and restore with it."""
    bundle_folder = folder / "b.bundle"
    (bundle_folder / MANIFEST).write_bytes(text)
    bundle = Bundle.open(bundle_folder)
    for program in bundle.manifest.programs:
        bundle.program_folder(program)
    bundle.file(bundle.manifest.weights)
    restorer = Restorer.load(bundle_folder, backend="onnxruntime", threads=1, warm_up=False)
    restorer.restore(np.full((4, 4, 3), 90, np.uint8), max_iterations=1, min_iterations=1, budget_ms=1000.0)
    return "restored with it"


def main() -> None:
    """Run the cases and count how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run(arguments.cases, arguments.seed)


def run(cases: int, seed: int, restorer: Restorer | None = None) -> Counter[str]:
    """Raises what a case raised that it should not have."""
    rng = random.Random(seed)
    restorer = restorer or Restorer.load(backend="onnxruntime", threads=1)
    whole, manifest = seeds(rng), json.loads((EMBEDDED / MANIFEST).read_text())
    ended: Counter[str] = Counter()

    def too_long(*_: object) -> None:
        raise Hang(f"no answer after {LIMIT_S} s")

    signal.signal(signal.SIGALRM, too_long)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "inside"
        folder.mkdir()
        shutil.copytree(EMBEDDED, folder / "b.bundle")
        for case in range(cases):
            signal.alarm(LIMIT_S)
            try:
                if case % 2 == 0:
                    ended[picture_case(folder, damage(rng.choice(whole), rng), restorer)] += 1
                else:
                    text = json.dumps(twist(manifest, rng)).encode()
                    ended[manifest_case(folder, damage(text, rng) if rng.random() < 0.5 else text)] += 1
            except BurnishError as error:
                if "\n" in str(error):
                    raise SystemExit(f"case {case} of seed {seed}: more than a line: {error}") from error
                ended[type(error).__name__] += 1
            except BaseException:
                shutil.copytree(folder, Path.cwd() / f"fuzz-{seed}-{case}")
                print(f"case {case} of seed {seed} is in fuzz-{seed}-{case}")
                raise
            finally:
                signal.alarm(0)
        strays = [p.name for p in Path(outer).iterdir() if p != folder]
        assert not strays, f"written outside: {strays}"
    print(f"{cases} cases, seed {seed}, {time.perf_counter() - began:.0f} s: {dict(ended)}")
    return ended


if __name__ == "__main__":
    main()
