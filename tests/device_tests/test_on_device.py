"""Accuracy where it runs: a validation's pictures restored on a device, compared with the host and the student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from burnish.device_tests.metrics import to_pixels
from burnish.device_tests.on_device import DevicePrograms
from burnish.device_tests.trajectory import run_restorer
from burnish.device_tests.validate import Plan, measure
from burnish.runtime import Picture, Restorer
from burnish.runtime.bundle import Bundle
from burnish.runtime.errors import DeviceError
from burnish.runtime.pictures import write
from emulation import Phone
from numpy.typing import NDArray

INT8 = "executorch-xnnpack-int8"


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture
def degraded(photo: NDArray[np.float32]) -> NDArray[np.float32]:
    noise = np.random.default_rng(3).normal(0, 0.1, (120, 300, 3))
    return np.clip(photo[200:320, 200:500] + noise, 0, 1).astype(np.float32)


def test_a_device_gives_the_trajectory_of_the_runtime(
    native_runner: Path, embedded: Bundle, degraded: NDArray[np.float32]
) -> None:
    here = run_restorer(Restorer.load(program=INT8, backend="executorch", warm_up=False), degraded, 2)
    programs = DevicePrograms(embedded, "host")
    try:
        assert programs.runnable([INT8, "coreml-fp16"]) == [INT8] if "coreml-fp16" in names(embedded) else [INT8]
        there = programs.run(INT8, degraded, 2)
    finally:
        programs.close()
    assert len(here.pictures) == len(there.pictures) == 2
    for ours, theirs in zip(there.pictures, here.pictures, strict=True):
        assert np.array_equal(to_pixels(ours), to_pixels(theirs))
    assert there.plan == here.plan
    assert np.allclose([q[:3] for q in there.qualities], [q[:3] for q in here.qualities], atol=1e-9)
    assert np.allclose([q.prospect for q in there.qualities], [q.prospect for q in here.qualities], atol=1e-9)
    assert all(a == pytest.approx(b, abs=1e-9) for a, b in zip(there.gates, here.gates, strict=True))


def names(bundle: Bundle) -> list[str]:
    return [program.name for program in bundle.manifest.programs]


def pairs(folder: Path, degraded: NDArray[np.float32], clean: NDArray[np.float32]) -> Path:
    for kind, picture in (("degraded", degraded), ("clean", clean)):
        (folder / kind).mkdir(parents=True)
        write(Picture(picture), folder / kind / "one.png")
    return folder


def test_a_validation_has_a_row_for_the_phone(
    phone: Phone,
    arm_runner: Path,
    embedded: Bundle,
    photo: NDArray[np.float32],
    degraded: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    data = pairs(tmp_path / "data", degraded[:, :200], photo[200:320, 200:400])
    plan = Plan(data=data, programs=(INT8,), iterations=1, device=f"adb:{phone.serial}")
    numerics = measure(embedded, plan, tmp_path / "reports", quiet).numerics
    here, there = (numerics.row("pairs", (INT8, device), 1) for device in (None, plan.device))
    assert here is not None
    assert there is not None
    assert here.student is not None
    assert there.student is not None
    assert there.truth.psnr == pytest.approx(here.truth.psnr, abs=0.01)
    assert there.student.psnr == pytest.approx(here.student.psnr, abs=0.1)
    assert not phone.leftovers()


def test_a_device_that_runs_none_of_the_programs_says_so(native_runner: Path, embedded: Bundle) -> None:
    programs = DevicePrograms(embedded, "host")
    try:
        with pytest.raises(DeviceError, match="nothing there runs"):
            programs.runnable([])
    finally:
        programs.close()
