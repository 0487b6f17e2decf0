"""The C++ runner on this machine: the conformance cases, and the same answers as the Python runtime with the same program."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from burnish.device_tests.bench import Bench
from burnish.device_tests.devices import open_device
from burnish.device_tests.inputs import probe_samples
from burnish.device_tests.job import OUTPUTS, Job, Measure, Restore, Samples
from burnish.distill.degradations import degrade
from burnish.runtime import Restorer
from burnish.runtime.bundle import Bundle
from burnish.runtime.controller import Policy
from burnish.runtime.errors import DeviceError
from numpy.typing import NDArray
from safetensors.numpy import save_file

CONFORMANCE = Path(__file__).parents[1] / "conformance"
INT8, ONNX = "executorch-xnnpack-int8", "onnx-fp32"
POLICIES = [
    Policy(max_iterations=2),
    # All views, and on from there.
    Policy(max_iterations=5, min_iterations=5, rollback=False),
]
# A header whose tensor would lie outside its file.
BEYOND = b'{"0.image":{"dtype":"F32","shape":[9000000],"data_offsets":[0,36000000]}}'


def near(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(near(found[k], v, tolerance) for k, v in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(near(f, e, tolerance) for f, e in zip(found, expected, strict=True))
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return abs(found - expected) <= tolerance * max(1.0, abs(expected))
    return found == expected


@pytest.mark.parametrize("name", ["controller", "routing", "tiles"])
def test_conformance(native_runner: Path, name: str) -> None:
    path = CONFORMANCE / f"{name}.json"
    done = subprocess.run([native_runner, "--conformance", path], capture_output=True, text=True, check=True)
    results, cases = json.loads(done.stdout), json.loads(path.read_text())
    played = 0
    for section, found in results.items():
        assert len(found) == len(cases[section])
        for result, case in zip(found, cases[section], strict=True):
            if result is None:  # gates that a caller states are checked before a job is made
                assert "given" in case
                continue
            # The looser of the files' own tolerances: they are written with ten digits, weights computed in float32.
            tolerance = 1e-9 if name == "controller" or section == "orders" else 1e-5
            assert near(result, case["expected"], tolerance), case["name"]
            played += 1
    assert played >= 15


@pytest.fixture(scope="module")
def pictures(photo: NDArray[np.float32]) -> dict[str, NDArray[np.uint8]]:
    """Less than a tile with noise, several tiles in haze, and several in the dark."""
    whole = np.rint(photo * 255).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 25, (250, 101, 3))
    return {
        "small": np.clip(whole[:250, :101] + noise, 0, 255).astype(np.uint8),
        "hazy": np.rint(0.5 * whole[:200, 100:450] + 100).astype(np.uint8),
        "dark": np.rint(degrade(photo[:200, 100:450], {"low_light": 0.6}, 0) * 255).astype(np.uint8),
    }


@pytest.mark.parametrize(("program", "backend"), [(INT8, "executorch"), (ONNX, "onnxruntime")])
def test_the_whole_loop_is_that_of_the_runtime(
    native_runner: Path,
    embedded: Bundle,
    pictures: dict[str, NDArray[np.uint8]],
    program: str,
    backend: str,
) -> None:
    restorer = Restorer.load(program=program, backend=backend, warm_up=False)
    chosen = embedded.program(program)
    with Bench(open_device("host"), embedded) as bench:
        for policy in POLICIES if program == INT8 else POLICIES[:1]:
            task = Restore.by(embedded, chosen, policy, keep_steps=True)
            outcome = bench.run(chosen, Job(program="", restore=task), pictures=pictures)
            for row in outcome.result.restorations:
                expected = restorer.restore(pictures[row.name], keep_steps=True, **policy.model_dump())
                # Where tiles take the look's tokens, and where the mean of their own.
                for leaf, name in (("haze", "hazy"), ("low_light", "dark")):
                    assert (expected.steps[1].degradations[leaf] > 0.5) == (row.name == name)
                assert (row.reason, row.iteration, row.tiles) == (
                    expected.reason.value,
                    expected.iteration,
                    expected.tiles,
                )
                steps = [(e.ran, e.tile, e.iteration) for e in expected.trace]
                assert ([ran for ran, *_ in steps[:3]] == ["look", "encode", "encode"]) == (row.name == "dark")
                assert [(e.ran, e.tile, e.iteration) for e in row.trace] == steps
                assert row.quality == pytest.approx(expected.quality, abs=1e-9)
                assert np.array_equal(outcome.pictures[row.name], expected.picture.pixels)
                assert len(row.steps) == len(expected.steps)
                for index, (ours, theirs) in enumerate(zip(row.steps, expected.steps, strict=True)):
                    assert ours.quality == pytest.approx(theirs.quality, abs=1e-9)
                    assert ours.gates == pytest.approx(theirs.gates, abs=1e-9)
                    assert ours.degradations == pytest.approx(theirs.degradations, abs=1e-9)
                    shown = np.rint(expected.steps_rgb[index] * 255).astype(np.uint8)
                    assert np.array_equal(outcome.pictures[f"{row.name}.{index}"], shown)


@pytest.mark.parametrize("program", [INT8, ONNX])
def test_measures_and_gives_every_output(native_runner: Path, embedded: Bundle, program: str) -> None:
    samples = probe_samples(embedded)
    job = Job(program="", threads=1, measure=Measure(warm_up=1, runs=3), samples=Samples(outputs=OUTPUTS))
    with Bench(open_device("host"), embedded) as bench:
        first = bench.run(embedded.program(program), job, samples)
        second = bench.run(embedded.program(program), job, samples)
    measured, load, memory = first.result.measure, first.result.load, first.result.memory
    assert measured is not None
    assert load is not None
    assert memory is not None
    assert len(measured.encode_ms) == len(measured.refine_ms) == 3
    assert min(*measured.encode_ms, *measured.refine_ms, load.cold_ms, load.warm_ms, load.first_run_ms) > 0
    assert 2**20 < memory.program_bytes < memory.process_bytes < 2**31
    assert first.result.threads == 1
    assert measured.distinct_outputs == 1
    assert second.result.measure is not None
    assert second.result.measure.digest == measured.digest
    assert set(first.samples) == {f"{i}.{name}" for i in range(2) for name in OUTPUTS}
    assert first.samples["0.restored"].shape == samples["0.image"].shape


def test_both_runners_agree_on_what_they_are_given(native_runner: Path, embedded: Bundle) -> None:
    """Same job, two programs of one student: features and picture are those of the student within its precision."""
    samples = probe_samples(embedded)
    job = Job(program="", samples=Samples(outputs=OUTPUTS))
    with Bench(open_device("host"), embedded) as bench:
        ours, theirs = (bench.run(embedded.program(p), job, samples).samples for p in (INT8, ONNX))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.shape == theirs[name].shape, name
    assert float(np.abs(ours["0.restored"] - theirs["0.restored"]).mean()) < 0.02


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"job.json": b"{"}, "parse error"),
        ({"job.json": b'{"format": 99}'}, "format"),
        ({"samples.safetensors": b"\xff" * 64}, "safetensors"),
        ({"samples.safetensors": (2**40).to_bytes(8, "little") + b"{}"}, "safetensors"),
        (
            {"samples.safetensors": len(BEYOND).to_bytes(8, "little") + BEYOND},
            "offsets",
        ),
        ({"student.pte": b"no program"}, "cannot load"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    native_runner: Path, embedded: Bundle, tmp_path: Path, change: dict[str, bytes], complaint: str
) -> None:
    folder = embedded.program_folder(embedded.program(INT8))
    (tmp_path / "student.pte").write_bytes((folder / "student.pte").read_bytes())
    save_file(probe_samples(embedded, 1), tmp_path / "samples.safetensors")
    job = Job(program="student.pte", measure=Measure(warm_up=0, runs=1))
    (tmp_path / "job.json").write_text(job.model_dump_json(exclude_none=True))
    for name, content in change.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "out").mkdir()
    done = subprocess.run([native_runner, tmp_path, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert complaint in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_job_ends_itself_at_its_limit(native_runner: Path, embedded: Bundle) -> None:
    job = Job(program="", limit_s=1, measure=Measure(warm_up=0, runs=1_000_000))
    with Bench(open_device("host"), embedded) as bench, pytest.raises(DeviceError, match="runner failed"):
        bench.run(embedded.program(INT8), job, probe_samples(embedded, 1))


@pytest.mark.parametrize(
    ("arguments", "ndk", "complaint"),
    [([], "", "no folder"), (["out"], "/nowhere", "no NDK"), (["out", "armeabi"], None, "armeabi is no ABI")],
)
def test_the_android_build_says_what_it_lacks(
    tmp_path: Path, arguments: list[str], ndk: str | None, complaint: str
) -> None:
    """It is not run further: there is no NDK here."""
    if ndk is None:
        toolchain = tmp_path / "ndk" / "build" / "cmake" / "android.toolchain.cmake"
        toolchain.parent.mkdir(parents=True)
        toolchain.touch()
        ndk = str(tmp_path / "ndk")
    script = Path(__file__).parents[2] / "device_tests" / "runner" / "build-android"
    environment = {**os.environ, "ANDROID_NDK": ndk}
    done = subprocess.run(
        ["bash", script, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()
