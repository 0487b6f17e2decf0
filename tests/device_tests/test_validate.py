"""A whole validation of a bundle: every program, the gate, the report, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from burnish.device_tests.gate import Gate
from burnish.device_tests.numerics import BASELINE, INPUT
from burnish.device_tests.parts import FOLDER
from burnish.device_tests.report import write_validation
from burnish.device_tests.summary import SPEED
from burnish.device_tests.table import table
from burnish.device_tests.validate import Plan, measure
from burnish.runtime import Bundle, InputError
from burnish.runtime.bundle import Profile
from burnish.runtime.pictures import Picture, write
from numpy.typing import NDArray

PROGRAMS = ("onnx-fp32", "executorch-xnnpack-fp32", "executorch-xnnpack-int8", "tensorrt-int8")
LOOSE = Gate(
    max_drop_db=30.0, max_worst_drop_db=None, max_ssim_drop=None, max_delta_e=None, max_bias=None, min_same_stop=None
)


@pytest.fixture(scope="module")
def small_photos(tmp_path_factory: pytest.TempPathFactory, photo: NDArray) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, top in enumerate((100, 220)):
        write(Picture(photo[top : top + 64, 180:244]), folder / f"{index}.png")
    return folder


class Killed(Exception):
    pass


def test_a_validation_passes_or_fails_and_goes_on_after_a_kill(
    bundle_path: Path, small_photos: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(bundle_path)
    plan = Plan(
        data=small_photos,
        conditions=("clean", "noise-25", "haze-heavy"),
        programs=PROGRAMS,
        iterations=2,
        gate=LOOSE,
    )

    def stop(done: int, total: int, what: str) -> None:
        assert total == 6
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        measure(bundle, plan, tmp_path, stop)
    seen: list[int] = []
    validation = measure(bundle, plan, tmp_path, lambda done, total, what: seen.append(done))
    assert seen == [2, 3, 4, 5, 6]  # the first while loading
    numerics = validation.numerics
    assert numerics.passed
    assert [name for name, _ in numerics.candidates] == [INPUT, BASELINE, *PROGRAMS]
    assert len(numerics.rows) == 4 * (1 + 5 * 2)
    for program in PROGRAMS[:2]:
        for iteration in (1, 2):
            row = numerics.row("noise-25", (program, None), iteration)
            assert row is not None
            assert row.student is not None
            assert row.student.psnr > 60
            assert row.student.drop_db == pytest.approx(0, abs=0.01)
    # Judged anew from what is finished, without running anything.
    strict = measure(bundle, plan.model_copy(update={"gate": Gate(max_drop_db=0.0)}), tmp_path, lambda *_: None)
    assert not strict.numerics.passed
    text = table(strict.numerics)
    assert "FAILED by" in text
    assert "PSNR in dB, iteration 2" in text
    assert "unmeasured" in text
    assert "gate: passed" in table(numerics)

    write_validation(*validation, tmp_path, bundle)
    assert (tmp_path / "report.html").is_file()
    assert not (tmp_path / FOLDER).exists()
    written = json.loads((tmp_path / "numerics.json").read_text())
    assert written["format"] == 2
    assert written["failures"] == []
    assert written["speed"] == dict.fromkeys(PROGRAMS, "unmeasured")


def test_several_processes_measure_the_same(bundle_path: Path, small_photos: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    plan = Plan(data=small_photos, conditions=("noise-25",), programs=("onnx-fp32",), iterations=1)
    one = measure(bundle, plan, tmp_path / "one", lambda *_: None)
    two = measure(bundle, plan.model_copy(update={"jobs": 2}), tmp_path / "two", lambda *_: None)
    assert [row.model_dump() for row in two.numerics.rows] == [row.model_dump() for row in one.numerics.rows]


def test_what_fails_in_a_worker_is_the_callers_error(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no picture")
    plan = Plan(data=tmp_path / "photos", conditions=("clean",), programs=("onnx-fp32",), iterations=1, jobs=2)
    with pytest.raises(InputError, match=r"a\.png"):
        measure(Bundle.open(bundle_path), plan, tmp_path / "report", lambda *_: None)
    assert not (tmp_path / "report").exists()


def test_given_pairs(bundle_path: Path, tmp_path: Path, photo: NDArray) -> None:
    crop = photo[100:164, 180:244]
    for name, picture in (("clean", crop), ("degraded", crop * 0.5)):
        (tmp_path / name).mkdir()
        write(Picture(picture), tmp_path / name / "a.png")
    plan = Plan(data=tmp_path, programs=("onnx-fp32",), iterations=1)
    validation = measure(Bundle.open(bundle_path), plan, tmp_path / "report", lambda *_: None)
    assert validation.numerics.conditions == ["pairs"]
    assert validation.numerics.passed
    assert [sample.condition for sample in validation.pictures.whole] == ["pairs"]


def test_int8_that_was_measured_not_to_be_faster_is_refused(
    bundle_path: Path, small_photos: Path, tmp_path: Path
) -> None:
    opened = Bundle.open(bundle_path)
    times = {"executorch-xnnpack-int8": 9.0, "executorch-xnnpack-fp32": 8.0}
    profiles = tuple(
        Profile(device="phone", program=name, encode_ms=(ms, 0.1), refine_ms=(ms, 0.1)) for name, ms in times.items()
    )
    bundle = Bundle(opened.path, opened.manifest.model_copy(update={"profiles": profiles}))
    plan = Plan(data=small_photos, pictures=1, conditions=("noise-25",), iterations=1, gate=LOOSE)
    plan = plan.model_copy(update={"programs": ("executorch-xnnpack-int8",)})
    (failure,) = measure(bundle, plan, tmp_path, lambda *_: None).numerics.failures
    assert (failure.metric, failure.device, failure.value) == (SPEED, "phone", pytest.approx(0.889))
    kept = measure(bundle, plan.model_copy(update={"keep_slow": True}), tmp_path, lambda *_: None)
    assert kept.numerics.passed
    assert "0.89 times as fast as executorch-xnnpack-fp32 on phone" in kept.numerics.speed["executorch-xnnpack-int8"]
