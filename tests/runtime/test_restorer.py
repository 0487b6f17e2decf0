"""The loop on real programs: every backend, any size, budgets, traces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from burnish.runtime import BackendError, InputError, Restorer, Stop
from numpy.typing import NDArray

PROGRAMS = ("onnx-fp32", "executorch-xnnpack-fp32", "executorch-xnnpack-int8", "tensorrt-int8")


@pytest.fixture(scope="module")
def pixels(photo: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(photo[100:250, 200:330] * 255).astype(np.uint8)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_gives_the_same_picture(bundle_path: Path, pixels: NDArray[np.uint8], program: str) -> None:
    reference = Restorer.load(bundle_path, program="onnx-fp32", warm_up=False)
    other = Restorer.load(bundle_path, backend="auto", program=program, warm_up=False)
    steps = dict(max_iterations=2, min_iterations=2, rollback=False)
    expected = reference.restore(pixels, **steps).pixels.astype(int)
    got = other.restore(pixels, **steps).pixels.astype(int)
    difference = np.abs(got - expected)
    assert np.any(expected != pixels), "the loop changed nothing, so the test shows nothing"
    assert difference.max() <= 1 if program.endswith("fp32") else difference.mean() < 6


@pytest.mark.parametrize("size", [(1, 1), (20, 300), (64, 64), (65, 130), (1200, 20)])
def test_any_size_comes_back_in_its_size(bundle_path: Path, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    result = Restorer.load(bundle_path, warm_up=False).restore(picture, max_iterations=1)
    assert result.pixels.shape == picture.shape


def test_no_budget_means_the_picture_itself(bundle_path: Path, pixels: NDArray[np.uint8]) -> None:
    result = Restorer.load(bundle_path).restore(pixels, budget_ms=0.0)
    assert result.reason is Stop.BUDGET
    assert result.iteration == 0
    np.testing.assert_array_equal(result.pixels, pixels)


def test_a_generous_budget_runs_to_the_limit(bundle_path: Path, pixels: NDArray[np.uint8]) -> None:
    result = Restorer.load(bundle_path).restore(
        pixels, budget_ms=60_000.0, max_iterations=3, min_gain=-1.0, rollback=False
    )
    assert result.reason is Stop.ITERATIONS
    assert [step.iteration for step in result.steps] == list(range(len(result.steps)))
    assert result.elapsed_ms >= sum(step.cost_ms for step in result.steps) * 0.99


def test_alpha_and_sixteen_bits_come_through(bundle_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (40, 50, 4)).astype(np.uint16)
    result = Restorer.load(bundle_path, warm_up=False).restore(picture, max_iterations=1)
    assert result.pixels.dtype == np.uint16
    np.testing.assert_array_equal(result.pixels[..., 3], picture[..., 3])


def test_gates_given_by_hand_are_used(bundle_path: Path, pixels: NDArray[np.uint8]) -> None:
    restorer = Restorer.load(bundle_path, warm_up=False)
    result = restorer.restore(pixels, max_iterations=1, degradations={"rain": 0.7})
    assert result.steps[1].gates["rain"] == 0.7
    assert sum(result.steps[1].gates.values()) == pytest.approx(0.7)
    with pytest.raises(InputError, match="fog"):
        restorer.restore(pixels, degradations={"fog": 1.0})


def test_an_unknown_backend_is_named(bundle_path: Path) -> None:
    with pytest.raises(BackendError, match="tpu"):
        Restorer.load(bundle_path, backend="tpu")


def test_the_embedded_bundle_restores_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from burnish.runtime import Restorer\n"
        "r = Restorer.load(warm_up=False).restore(np.full((64, 64, 3), 90, np.uint8), max_iterations=1)\n"
        "assert r.pixels.shape == (64, 64, 3)\n"
        "assert not {'torch', 'executorch', 'onnx'} & set(sys.modules), 'a heavy library was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
