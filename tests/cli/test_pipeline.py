"""`burnish run`: stages in order, skipped when done, unharmed by kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from burnish.runtime import Bundle
from shared import PHOTOS

PROGRAMS = ("executorch-xnnpack-int8", "onnx-fp32")
RECIPE = f"""
version: 1
distill:
  size: nano
  photos: {PHOTOS / "train"}
  schedule: {{steps: 6, batch: 2, patch: 32, workers: 0, warmup: 2, ema: 0.5, save_seconds: 0.0, log_seconds: 0.0}}
calibration: {PHOTOS / "dev"}
quantize: {{pictures: 2, iterations: 2}}
export: {{tile: 64, programs: [{", ".join(PROGRAMS)}]}}
validate: {{photos: {PHOTOS / "dev"}, pictures: 1, conditions: [noise-25], programs: [onnx-fp32], iterations: 1}}
profile: {{programs: [onnx-fp32], runs: 2}}
restore: {{photo: {PHOTOS / "dev" / "861443.jpg"}, degradations: {{rain: 0.5}}}}
"""
STAGES = ("distill", "quantize", "export", "validate", "profile", "restore")


def start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "burnish.cli.main", "run", str(recipe), "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def stamps(out: Path) -> dict[str, float]:
    return {p.stem: p.stat().st_mtime for p in (out / "stages").glob("*.json")} if (out / "stages").is_dir() else {}


def test_killed_at_random_moments_it_finishes_and_repeats_nothing(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    moments = random.Random(0)
    for _ in range(int(os.environ.get("BURNISH_KILLS", "3"))):
        before = stamps(out)
        process = start(recipe, out)
        time.sleep(moments.uniform(3, 15))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name, moment in before.items():
            assert stamps(out)[name] == moment, f"{name} was repeated"
        bundle = out / "photo.bundle"
        if bundle.exists():
            Bundle.open(bundle)
    before = stamps(out)
    process = start(recipe, out)
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text
    for name in before:
        assert f"{name}: up to date" in text
    bundle = Bundle.open(out / "photo.bundle")
    assert {program.name for program in bundle.manifest.programs} == set(PROGRAMS)
    for program in bundle.manifest.programs:
        bundle.program_folder(program)
    for result in (
        "reports/report.html",
        "reports/numerics.json",
        "reports/perf.json",
        "restored.png",
        "trace/step_0.png",
        "trace/trace.json",
    ):
        assert (out / result).stat().st_size > 0

    finished = stamps(out)
    process = start(recipe, out)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert all(f"{name}: up to date" in text for name in STAGES)
    assert stamps(out) == finished

    # A changed recipe repeats what depends on the change and nothing before it.
    recipe.write_text(RECIPE.replace("rain: 0.5", "rain: 0.6"))
    process = start(recipe, out)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "validate: up to date" in text
    assert "restore: up to date" not in text
    assert json.loads((out / "trace" / "trace.json").read_text())["steps"]
