"""`teacher cache` and `distill` as commands: killed at any moment and started again, they leave the files of a whole run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from burnish.distill.teachers.registry import create
from burnish.distill.weights import save_teacher
from shared import PHOTOS

RECIPE = """
version: 1
distill:
  size: nano
  photos: {photos}
  cache: {cache}
  schedule: {{steps: 40, batch: 2, patch: 32, workers: 0, warmup: 2, ema: 0.5, save_seconds: 0.0, log_seconds: 0.0}}
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    """`burnish …` on CPU, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "burnish.cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )


def finish(*arguments: object) -> str:
    process = start(*arguments)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def kill(progress: Callable[[], object], delay: float, *arguments: object) -> None:
    """Start the command and kill it `delay` seconds after what `progress` returns has changed."""
    process, before = start(*arguments), progress()
    while process.poll() is None and progress() == before:
        time.sleep(0.005)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    text, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, text


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def cache_command(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """`teacher cache` of five shards, without its destination."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    save_teacher(create("sipl-restormer", "tiny"), "tiny", weights)
    options = ("--weights", weights, "--samples", 300, "--patch", 32)
    return ["teacher", "cache", "sipl-restormer", PHOTOS / "train", *options]


@pytest.fixture(scope="module")
def cache(cache_command: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run of one process writes."""
    out = tmp_path_factory.mktemp("cache") / "whole"
    finish(*cache_command, out)
    assert len(list(out.iterdir())) == 6
    return out


def test_a_killed_cache_is_finished_as_if_never_killed(
    cache_command: list[object], cache: Path, tmp_path: Path
) -> None:
    out, moments = tmp_path / "killed", random.Random(0)
    for _ in range(2):
        kill(lambda: len(list(out.glob("shard-*"))), moments.uniform(0, 0.2), *cache_command, out)
    (out / ".4711.shard-00004.safetensors").write_bytes(b"half")  # where a kill met a write
    finish(*cache_command, out)
    assert contents(out) == contents(cache)


def test_two_processes_write_what_one_writes(cache_command: list[object], cache: Path, tmp_path: Path) -> None:
    text = finish(*cache_command, tmp_path / "two", "--devices", 2)
    assert text.count("cache: ") == 1  # the first process speaks for both
    assert contents(tmp_path / "two") == contents(cache)


def test_a_killed_distillation_is_finished_as_if_never_killed(cache: Path, tmp_path: Path) -> None:
    recipe, moments = tmp_path / "recipe.yaml", random.Random(1)
    recipe.write_text(RECIPE.format(photos=PHOTOS / "train", cache=cache))
    whole, out = tmp_path / "whole", tmp_path / "killed"
    finish("distill", recipe, "--out", whole)
    checkpoint = out / "checkpoint.pt"
    for _ in range(2):
        kill(
            lambda: checkpoint.exists() and checkpoint.stat().st_mtime_ns,
            moments.uniform(0, 0.5),
            *("distill", recipe, "--out", out),
        )
    finish("distill", recipe, "--out", out)
    one, other = contents(whole), contents(out)
    assert one.keys() == other.keys()
    for name in ("student.safetensors", "weights.safetensors", "run.json"):
        assert one[name] == other[name], name
    # The log has times, but the same rows.
    steps = [
        [json.loads(line)["step"] for line in log.decode().splitlines()]
        for log in (one["log.jsonl"], other["log.jsonl"])
    ]
    assert steps[0] == steps[1] == list(range(1, 41))
