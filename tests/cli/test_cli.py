"""The command: plain verbs, one-line errors, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from burnish.runtime.bundle import EMBEDDED
from PIL import Image
from shared import PHOTOS

PHOTO = PHOTOS / "eval" / "kodim23.png"


def burnish(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "burnish.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_restore_with_a_trace(tmp_path: Path) -> None:
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / "step_9.png").touch()  # of a longer trace
    done = burnish(
        "restore", PHOTO, tmp_path / "out.png", "--max-iterations", "2", "--trace", tmp_path / "trace", "--json"
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert Image.open(tmp_path / "out.png").size == Image.open(PHOTO).size
    steps = sorted(p.name for p in (tmp_path / "trace").glob("*.png"))
    assert len(steps) == len(row["steps"]) == len(json.loads((tmp_path / "trace" / "trace.json").read_text())["steps"])
    assert row["reason"] in ("iterations", "regression", "plateau")


def test_restore_says_why_it_stopped(tmp_path: Path) -> None:
    done = burnish("restore", PHOTO, tmp_path / "out.png", "--budget-ms", "0")
    assert done.returncode == 0, done.stderr
    assert "stopped: budget" in done.stdout
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(Image.open(PHOTO)))


def bad_files(folder: Path) -> dict[str, list[str | Path]]:
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes(PHOTO.read_bytes()[:9000])
    (folder / "own.png").write_bytes(PHOTO.read_bytes())
    (folder / "empty.bundle").mkdir()
    (folder / "unknown.yaml").write_text("version: 1\nspeed: fast\n")
    (folder / "wrong.safetensors").write_bytes(b"\0" * 64)
    out = folder / "out.png"
    student = EMBEDDED / "student.safetensors"
    return {
        "not a picture": ["restore", folder / "text.png", out],
        "truncated": ["restore", folder / "cut.png", out],
        "missing": ["restore", folder / "none.png", out],
        "no bundle": ["restore", PHOTO, out, "--bundle", folder / "empty.bundle"],
        "missing program": ["restore", PHOTO, out, "--program", "tensorrt-int4"],
        "unknown degradation": ["restore", PHOTO, out, "--degradation", "fog=1"],
        "malformed degradation": ["restore", PHOTO, out, "--degradation", "rain"],
        "unknown suffix": ["restore", PHOTO, folder / "out.xyz"],
        "onto itself": ["restore", folder / "own.png", folder / "." / "own.png"],
        "trace is a file": ["restore", PHOTO, out, "--trace", folder / "text.png"],
        "trace below a file": ["restore", PHOTO, out, "--trace", folder / "text.png" / "trace"],
        "no such folder": ["restore", PHOTO, folder / "none" / "out.png"],
        "unknown key": ["run", folder / "unknown.yaml", "--out", folder / "run"],
        "no recipe": ["run", folder / "none.yaml", "--out", folder / "run"],
        "wrong weights": ["quantize", folder / "wrong.safetensors", folder / "q", "--calibration", PHOTOS / "dev"],
        "bad tile": [
            "quantize",
            folder / "wrong.safetensors",
            folder / "q",
            "--calibration",
            PHOTOS / "dev",
            "--tile",
            "7",
        ],
        "unknown target": [
            "quantize",
            folder / "wrong.safetensors",
            folder / "q",
            "--calibration",
            PHOTOS / "dev",
            "--target",
            "hexagon",
        ],
        "no photographs": ["validate", "--data", folder / "empty.bundle", "--report", folder / "reports"],
        "unknown program": ["export", student, out, "--calibration", PHOTOS / "dev", "--program", "onnx-fp64"],
        "no calibration": ["export", student, out, "--calibration", folder / "empty.bundle"],
        "unknown device": ["profile", "--device", "hots", "--report", folder / "reports"],
        "unknown verb": ["polish", PHOTO],
    }


CASES = [
    "not a picture",
    "truncated",
    "missing",
    "no bundle",
    "missing program",
    "unknown degradation",
    "malformed degradation",
    "unknown suffix",
    "onto itself",
    "trace is a file",
    "trace below a file",
    "no such folder",
    "unknown key",
    "no recipe",
    "wrong weights",
    "bad tile",
    "unknown target",
    "no photographs",
    "unknown program",
    "no calibration",
    "unknown device",
    "unknown verb",
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, case: str) -> None:
    arguments = bad_files(tmp_path)[case]
    before = sorted(tmp_path.rglob("*"))
    done = burnish(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    if case != "unknown verb":
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ")
    left = [p for p in sorted(tmp_path.rglob("*")) if p not in before and p.name not in ("run",)]
    assert not left


def test_a_corrupt_photograph_met_by_a_worker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_text("no picture")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("distill: {size: nano, photos: photos, schedule: {steps: 1, batch: 1, patch: 32, workers: 1}}")
    done = burnish("distill", recipe, "--out", tmp_path / "out")
    bad = f"{tmp_path.resolve() / 'photos' / 'bad.png'} is no picture that can be read"
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {bad}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        done = burnish("restore", PHOTO, mount / "out.png", "--max-iterations", "1")
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot write")
        assert not list(mount.iterdir())
    finally:
        subprocess.run(["umount", mount], check=True)


def test_inspect_lists_programs() -> None:
    done = burnish("inspect", "--json")
    assert done.returncode == 0, done.stderr
    names = [f"{p['target']}-{p['precision']}" for p in json.loads(done.stdout)["programs"]]
    assert "onnx-fp32" in names
