"""RestoreCore of the iOS demo against the Python runtime: conformance, bundle, plan, decisions and bytes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import swift
from burnish.device_tests.job import Job, JobResult, Measure, Restore, Samples
from burnish.device_tests.perf import EMULATED, Perf, timing
from burnish.runtime.backends import load_session
from burnish.runtime.bundle import EMBEDDED, Bundle
from burnish.runtime.controller import Policy
from burnish.runtime.pictures import read
from burnish.runtime.restorer import Restorer
from burnish.runtime.tiles import plan_tiles, small_size
from recording import Recorder
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(swift.REPOSITORY / "tests" / "runtime"))
from conformance import FOLDER, play_controller

pytestmark = swift.needs_swift
PHOTO = next((swift.REPOSITORY / "recipes" / "photos" / "dev").glob("*.jpg"))
PROGRAM = "onnx-fp32"


@pytest.fixture(scope="module", autouse=True)
def built() -> str:
    """What building says; a warning of ours fails every test."""
    said = swift.run(["swift", "build", "--build-tests", *swift.options()])
    assert "warning:" not in said, said[-4000:]
    return said


@pytest.fixture(scope="module")
def restore_check() -> Path:
    folder = swift.run(["swift", "build", "--show-bin-path", *swift.options()]).strip().splitlines()[-1]
    return Path(folder) / "restore-check"


def test_swift_tests_pass() -> None:
    said = swift.run(["swift", "test", "--skip-build", *swift.options()])
    assert "passed after" in said


def _conformance(folder: Path, change: Any) -> Path:
    copy = folder / "conformance"
    shutil.copytree(FOLDER, copy)
    content = json.loads((copy / "controller.json").read_text())
    case = json.loads(json.dumps(content["cases"][0])) | {"name": "added by a test"}
    case["policy"] = {"max_iterations": 1}
    case["expected"] = play_controller(case)
    change(case["expected"])
    content["cases"].append(case)
    (copy / "controller.json").write_text(json.dumps(content))
    return copy


def test_a_case_that_is_added_is_played_without_a_change_of_code(tmp_path: Path) -> None:
    command = ["swift", "test", "--skip-build", "--filter", "ConformanceTests", *swift.options()]
    right = _conformance(tmp_path / "right", lambda expected: None)
    assert swift.call(command, see=[tmp_path], conformance=right).returncode == 0
    wrong = _conformance(tmp_path / "wrong", lambda expected: expected.update(reason="plateau"))
    done = swift.call(command, see=[tmp_path], conformance=wrong)
    assert done.returncode != 0
    assert "added by a test" in done.stdout


@pytest.mark.parametrize(("height", "width"), [(1, 1), (272, 272), (300, 900), (1080, 1921), (3024, 4032)])
def test_a_bundle_gives_the_same_plan(restore_check: Path, height: int, width: int) -> None:
    said = json.loads(swift.run([restore_check, "bundle", EMBEDDED, str(height), str(width)]))
    bundle = Bundle.open(EMBEDDED)
    manifest = bundle.manifest
    plan = plan_tiles(height, width, manifest.tile)
    assert said["programs"] == [program.name for program in manifest.programs]
    assert (said["tile"], said["rank"]) == (manifest.tile, manifest.student.rank)
    assert said["experts"] == list(manifest.routing.experts)
    assert (said["rows"], said["columns"]) == (list(plan.rows), list(plan.columns))
    assert said["small"] == list(small_size(height, width, manifest.tile))
    np.testing.assert_allclose(said["areas"], plan.areas, rtol=1e-12)
    for ours, theirs in zip((said["down"], said["across"]), plan.ramps, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(np.float32(one), other, rtol=0, atol=1e-7)


def test_a_damaged_bundle_is_refused_in_one_line(restore_check: Path, tmp_path: Path) -> None:
    copy = tmp_path / "photo.bundle"
    shutil.copytree(EMBEDDED, copy)
    program = next((copy / "programs").rglob("*.pte"))
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    done = swift.call([restore_check, "bundle", copy, "8", "8"], see=[tmp_path])
    assert done.returncode == 1
    assert done.stdout.startswith("error: programs/")
    assert len(done.stdout.strip().splitlines()) == 1


CASES = {
    "one tile": (200, 272, Policy(max_iterations=2), 1_000_000, 0),
    "four tiles": (290, 310, Policy(max_iterations=2, min_gain=-1), 1_000_000, 0),
    "four tiles in haze": (290, 310, Policy(max_iterations=2, min_gain=-1), 1_000_000, 0),
    "four tiles in low light": (290, 310, Policy(max_iterations=2, min_gain=-1), 1_000_000, 5),
    "all views": (250, 272, Policy(min_iterations=4, rollback=False), 1_000_000, 15),
    "little memory": (290, 310, Policy(max_iterations=5, min_iterations=5), 1, 25),
    "no roll-back": (280, 260, Policy(max_iterations=2, min_iterations=2, rollback=False), 1_000_000, 15),
}


@pytest.mark.parametrize("case", CASES)
def test_a_restoration_takes_the_same_decisions_and_gives_the_same_bytes(
    restore_check: Path, tmp_path: Path, case: str
) -> None:
    height, width, policy, keep, noise = CASES[case]
    bundle = Bundle.open(EMBEDDED)
    program = bundle.program(PROGRAM)
    pixels = read(PHOTO).pixels[:height, :width]
    assert pixels.shape == (height, width, 3)
    grains = np.random.default_rng(0).normal(0, noise, pixels.shape)
    if "haze" in case:
        pixels = 0.25 * pixels + 185
    elif "low light" in case:
        pixels = 0.35 * pixels
    pixels = np.clip(pixels + grains, 0, 255).astype(np.uint8)
    recorder = Recorder(load_session("onnxruntime", bundle.program_folder(program), 1))
    memory = keep * program.boundary_bytes["encode"] / 2**20
    restorer = Restorer(bundle, program, "onnxruntime", recorder, feature_memory_mb=memory * 1.000001)
    expected = restorer.restore(pixels, keep_steps=True, **policy.model_dump())
    # Where tiles take the look's tokens.
    assert (expected.steps[1].degradations["haze"] > 0.5) == ("haze" in case)
    # Where they take the mean of theirs: all are encoded before the first is refined.
    assert ([event.ran for event in expected.trace[1:3]] == ["encode", "encode"]) == ("low light" in case)
    if case == "all views":
        assert [event.iteration for event in expected.trace if event.ran == "mirror"] == [1, 2, 3]

    home = tmp_path / "home"
    (home / "job" / "out").mkdir(parents=True)
    recorder.write(home / "program0")
    restore = Restore(
        tile=bundle.manifest.tile,
        rank=bundle.manifest.student.rank,
        keep=keep,
        routing=bundle.manifest.routing,
        calibration=program.calibration,
        policy=policy,
        keep_steps=True,
    )
    job = Job(program="../program0", restore=restore)
    (home / "job" / "job.json").write_text(job.model_dump_json(exclude_none=True))
    save_file({"x": pixels}, home / "job" / "pictures.safetensors")
    swift.run([restore_check, "job", home, home / "job", home / "job" / "out"], see=[tmp_path])

    result = JobResult.model_validate_json((home / "job" / "out" / "result.json").read_bytes())
    (got,) = result.restorations
    assert [(e.ran, e.tile, e.iteration, e.broken) for e in got.trace] == [
        (e.ran, e.tile, e.iteration, False) for e in expected.trace
    ]
    for ours, theirs in zip(got.trace, expected.trace, strict=True):
        assert ours.prospect == pytest.approx(theirs.prospect, abs=1e-12)
        assert ours.difference == pytest.approx(theirs.difference, abs=1e-12)
    assert (got.reason, got.iteration, got.tiles) == (expected.reason.value, expected.iteration, expected.tiles)
    assert got.quality == pytest.approx(expected.quality, abs=1e-12)
    for ours, theirs in zip(got.steps, expected.steps, strict=True):
        assert ours.iteration == theirs.iteration
        assert ours.quality == pytest.approx(theirs.quality, abs=1e-12)
        assert ours.gates == pytest.approx(theirs.gates, abs=1e-12)
        assert ours.degradations == pytest.approx(theirs.degradations, abs=1e-12)
    pictures = load_file(home / "job" / "out" / "restored.safetensors")
    np.testing.assert_array_equal(pictures.pop("x"), expected.pixels)
    assert len(pictures) == len(expected.steps_rgb)
    for index, rgb in enumerate(expected.steps_rgb):
        np.testing.assert_array_equal(pictures[f"x.{index}"], np.rint(rgb * 255).astype(np.uint8))
    if case == "little memory":
        assert any(event.ran == "recall" for event in got.trace)


def test_a_job_that_measures_gives_what_profile_reads(restore_check: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(EMBEDDED)
    tile, routing = bundle.manifest.tile, bundle.manifest.routing
    image = np.random.default_rng(0).random((1, 3, tile, tile), np.float32)
    gates = np.zeros((1, len(routing.experts) * bundle.manifest.student.rank, 1, 1), np.float32)
    recorder = Recorder(load_session("onnxruntime", bundle.program_folder(bundle.program(PROGRAM)), 1))
    encoded = recorder.encode(image)
    restored, quality = recorder.refine(image, encoded, encoded, gates)
    (tmp_path / "job" / "out").mkdir(parents=True)
    recorder.write(tmp_path / "program0")
    job = Job(program="../program0", measure=Measure(warm_up=1, runs=3), samples=Samples())
    (tmp_path / "job" / "job.json").write_text(job.model_dump_json(exclude_none=True))
    save_file({"0.image": image, "0.gates": gates}, tmp_path / "job" / "samples.safetensors")
    swift.run([restore_check, "job", tmp_path, tmp_path / "job", tmp_path / "job" / "out"], see=[tmp_path])
    result = JobResult.model_validate_json((tmp_path / "job" / "out" / "result.json").read_bytes())
    assert result.measure is not None
    assert len(result.measure.encode_ms) == len(result.measure.refine_ms) == 3
    assert result.measure.distinct_outputs == 1
    samples = load_file(tmp_path / "job" / "out" / "samples.safetensors")
    np.testing.assert_array_equal(samples["0.restored"], restored)
    np.testing.assert_allclose(samples["0.quality"], [quality], rtol=1e-6)
    expected = [encoded.quality, encoded.granularity, *encoded.logits]
    np.testing.assert_allclose(samples["0.assessment"], expected, rtol=1e-6)


def test_the_benchmark_writes_perf_json(restore_check: Path, tmp_path: Path) -> None:
    swift.run([restore_check, "probe", EMBEDDED, tmp_path / "probe.safetensors"], see=[tmp_path])
    probe = load_file(tmp_path / "probe.safetensors")
    bundle = Bundle.open(EMBEDDED)
    recorder = Recorder(load_session("onnxruntime", bundle.program_folder(bundle.program(PROGRAM)), 1))
    encoded = recorder.encode(probe["image"])
    recorder.refine(probe["image"], encoded, encoded, probe["gates"])
    recorder.write(tmp_path / "recording")
    said = swift.run([restore_check, "perf", EMBEDDED, PROGRAM, tmp_path / "recording"], see=[tmp_path])
    perf = Perf.model_validate_json(said)
    (device,) = perf.devices
    (row,) = device.programs
    assert (row.program, row.note, row.threads) == (PROGRAM, "", 0)
    assert row.encode.runs == row.refine.runs == row.iteration.runs == 7
    assert row.note != EMULATED
    assert device.identity is not None
    assert device.identity.platform == "ios-arm64"
    assert perf.measured == [(device, row)]


@pytest.mark.parametrize("count", [1, 2, 7, 50, 200])
def test_timings_are_those_of_python(restore_check: Path, count: int) -> None:
    values = np.random.default_rng(count).lognormal(2, 0.5, count).round(6)
    said = json.loads(swift.run([restore_check, "timing", *map(str, values)]))
    assert said == timing([float(v) for v in values]).model_dump()
