"""The shipped student on emulated Arm: int8 kernels without and with dot products give what x86 gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burnish.device_tests.agreement import agreement, restored_tiles
from burnish.device_tests.bench import Bench, Outcome
from burnish.device_tests.devices import open_device
from burnish.device_tests.devices.arm import CORES, ROOT_VARIABLE
from burnish.device_tests.inputs import probe_samples
from burnish.device_tests.job import OUTPUTS, Job, Restore, Samples
from burnish.runtime import Restorer
from burnish.runtime.bundle import Bundle
from burnish.runtime.controller import Policy
from emulation import ARM_ROOT, need_arm
from numpy.typing import NDArray

INT8 = "executorch-xnnpack-int8"
Tensors = dict[str, NDArray[Any]]


def run(bundle: Bundle, spec: str, program: str, job: Job, **inputs: Tensors) -> Outcome:
    with Bench(open_device(spec), bundle) as bench:
        return bench.run(bundle.program(program), job, **inputs)


@pytest.fixture(scope="module")
def on_x86(native_runner: Path, embedded: Bundle) -> Tensors:
    job = Job(program="", samples=Samples(outputs=OUTPUTS))
    return run(embedded, "host", INT8, job, samples=probe_samples(embedded, 1)).samples


@pytest.mark.parametrize("core", CORES)
def test_int8_on_arm_is_int8_on_x86(arm_runner: Path, embedded: Bundle, on_x86: Tensors, core: str) -> None:
    job = Job(program="", samples=Samples(outputs=OUTPUTS))
    found = run(embedded, f"arm:{core}", INT8, job, samples=probe_samples(embedded, 1)).samples
    assert found.keys() == on_x86.keys()
    same = agreement(restored_tiles(found), restored_tiles(on_x86))
    assert same.max_difference == 0 or same.within_one_level >= 0.999
    for name, value in found.items():
        # Features are int8 values in float; attention and heads are float and round differently.
        close = np.abs(value - on_x86[name]) <= 1e-4 * max(1.0, float(np.abs(on_x86[name]).max()))
        assert close.mean() >= 0.999, name


def test_float_on_arm_is_float_on_x86(arm_runner: Path, native_runner: Path, bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    job = Job(program="", samples=Samples(outputs=OUTPUTS))
    samples = probe_samples(bundle, 2)
    x86, arm = (
        run(bundle, spec, "executorch-xnnpack-fp32", job, samples=samples).samples
        for spec in ("host", f"arm:{CORES[1]}")
    )
    for name, value in x86.items():
        assert float(np.abs(value - arm[name]).max()) <= 1e-5 * max(1.0, float(np.abs(value).max())), name


def test_a_whole_restoration_on_arm_decides_as_the_runtime_on_the_host(
    arm_runner: Path, embedded: Bundle, photo: NDArray[np.float32]
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (200, 150, 3))
    picture = np.rint(np.clip(photo[100:300, 100:250] + noise, 0, 1) * 255).astype(np.uint8)
    policy = Policy(max_iterations=2)
    task = Restore.by(embedded, embedded.program(INT8), policy)
    outcome = run(embedded, f"arm:{CORES[1]}", INT8, Job(program="", restore=task), pictures={"noisy": picture})
    expected = Restorer.load(program=INT8, backend="executorch", warm_up=False).restore(picture, **policy.model_dump())
    row = outcome.result.restorations[0]
    assert (row.reason, row.iteration) == (expected.reason.value, expected.iteration)
    assert [(e.ran, e.tile, e.iteration) for e in row.trace] == [(e.ran, e.tile, e.iteration) for e in expected.trace]
    difference = np.abs(outcome.pictures["noisy"].astype(int) - expected.picture.pixels.astype(int))
    assert (difference <= 1).mean() >= 0.999


@pytest.mark.parametrize("core", CORES)
def test_onnxruntime_on_arm_is_onnxruntime_on_x86(embedded: Bundle, core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_arm()
    monkeypatch.setenv(ROOT_VARIABLE, str(ARM_ROOT))
    spec = f"arm:{CORES[1]}"
    device = open_device(spec)
    if not device.has_python:
        pytest.skip("no arm64 Python; .ci/devices unpacks one")
    job, samples = Job(program="", threads=1, samples=Samples()), probe_samples(embedded, 1)
    arm = run(embedded, spec, "onnx-fp32", job, samples=samples).samples
    x86 = run(embedded, "host", "onnx-fp32", job, samples=samples).samples
    for name, value in x86.items():
        assert float(np.abs(value - arm[name]).max()) <= 1e-5 * max(1.0, float(np.abs(value).max())), name
