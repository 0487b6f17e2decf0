"""The commands around export: pre-flight, engines, inspection; exit statuses and one line for what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from burnish.cli.main import app
from burnish.distill.student import Student
from burnish.distill.weights import Trained, save_student
from burnish.runtime.bundle import EMBEDDED, Provenance, Teacher
from burnish.runtime.errors import BackendError, InputError
from shared import PHOTOS
from typer.testing import CliRunner

HERE = Path(__file__).parents[1] / "export"


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def test_check_fails_with_status_1_and_names_the_change() -> None:
    done = CliRunner().invoke(app, ["export", "fragile:make", "--check", "--target", "executorch-xnnpack-fp32"])
    assert done.exit_code == 1
    assert "LayerNorm stays outside the XNNPACK delegate" in done.stdout
    assert "FAILED: expected at most 1 partition a method" in done.stdout


def test_check_as_json_passes_with_status_0() -> None:
    done = CliRunner().invoke(
        app, ["export", "fragile:make_sound", "--check", "--target", "executorch-xnnpack-fp32", "--json"]
    )
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert result["passed"]
    assert [v["partitions"] for v in result["verdicts"]] == [1, 1]


def fails(*arguments: str) -> Exception | None:
    return CliRunner().invoke(app, list(arguments)).exception  # type: ignore[return-value]


def test_export_without_a_destination_says_what_is_missing() -> None:
    error = fails("export", "student.safetensors")
    assert isinstance(error, InputError)
    assert "give the bundle's folder and --calibration PHOTOS, or --check" in str(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--program", "onnx-fp32"], "onnx-fp32 is no TensorRT program; this bundle has: tensorrt-fp16, tensorrt-int8"),
        (["--with", "nvcc"], "unknown builder 'nvcc'; expected one of tensorrt, torch-tensorrt"),
        (["--with", "torch-tensorrt"], "torch-tensorrt builds fp16 from the student's weights"),
    ],
)
def test_engines_that_cannot_be_built_are_named(bundle_path: Path, arguments: list[str], said: str) -> None:
    error = fails("build-engine", str(bundle_path), *arguments)
    assert isinstance(error, InputError)
    assert said in str(error)


def test_without_torch_tensorrt_build_engine_says_what_to_install(bundle_path: Path, tmp_path: Path) -> None:
    arguments = ["build-engine", str(bundle_path), "--program", "tensorrt-fp16", "--with", "torch-tensorrt"]
    error = fails(*arguments, "--cache", str(tmp_path / "engines"))
    assert isinstance(error, BackendError)  # without a GPU CUDA says so first
    assert not (tmp_path / "engines").exists()


def test_a_program_without_its_graphs_is_named(tmp_path: Path) -> None:
    (tmp_path / "xnnpack").mkdir()
    student, photos = str(EMBEDDED / "student.safetensors"), str(PHOTOS / "dev")
    error = fails(
        "export", student, str(tmp_path / "b"), "--calibration", photos, "--quantized", str(tmp_path),
        "--program", "tensorrt-int8",
    )  # fmt: skip
    assert isinstance(error, InputError)
    assert "has no tensorrt graphs, of which tensorrt-int8 is made" in str(error)


def test_a_teacher_that_forbids_shipping_is_named_in_export_and_inspection(student: Student, tmp_path: Path) -> None:
    taught = Provenance(teachers=(Teacher(name="promptir", licence="non-commercial", commercial_use=False),))
    save_student(Trained(student, provenance=taught), tmp_path / "s.safetensors")
    done = CliRunner().invoke(
        app,
        ["export", str(tmp_path / "s.safetensors"), str(tmp_path / "b"), "--calibration", str(PHOTOS / "dev"),
         "--tile", "64", "--program", "onnx-fp32"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "warning: promptir: non-commercial; what learns from it may not be shipped in a product" in done.output
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "b")]).stdout
    assert "teacher: promptir (non-commercial, NO commercial use)" in shown
