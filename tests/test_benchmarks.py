"""Benchmarks that compare pictures run, and say what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from burnish.runtime import Picture
from burnish.runtime.pictures import read, write
from numpy.typing import NDArray

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-W", "ignore", BENCHMARKS / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def photos(photo: NDArray[np.float32], tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    write(Picture(photo[40:200, 200:360]), folder / "one.png")
    return folder


def test_quality_measures_every_candidate(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "quality.json"
    pairs = f"same={photos}:{photos}"
    said = run(
        "quality.py", photos, "--condition", "noise-25", "--iterations", "1", "--pairs", pairs, "--out", out
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert list(found) == ["noise-25", "same", "mean of single"]
    noisy = found["noise-25"]
    assert noisy["student 1"]["psnr"] > noisy["non-local means"]["psnr"] > noisy["input"]["psnr"]
    assert noisy["student 1"]["haarpsi"] > noisy["input"]["haarpsi"]
    assert found["same"]["input"] == {"psnr": 100.0, "ssim": 1.0, "haarpsi": pytest.approx(1.0, abs=1e-4)}
    assert "(non-local means)" in next(line for line in said.splitlines() if line.startswith("| noise-25"))


def test_a_contact_sheet_has_a_column_an_iteration(photos: Path, tmp_path: Path) -> None:
    run("contact_sheet.py", photos, tmp_path / "sheet.png", "--iterations", "1", "--condition", "noise-25")
    assert read(tmp_path / "sheet.png").pixels.shape[:2] == (164, 320)
