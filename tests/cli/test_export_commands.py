"""The commands around export: pre-flight, engines, inspection; exit statuses and one line for what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from burnish.cli.main import app
from burnish.cli.stages import find_student
from burnish.distill.student import Student
from burnish.distill.weights import Trained, save_student
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.record import MARKER, Record
from burnish.runtime.bundle import EMBEDDED, Provenance, Teacher, embedded
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to write to; give the bundle's folder and --calibration PHOTOS, or --check"),
        (["bundle"], "no photographs to compare programs on; give --calibration PHOTOS"),
        (["bundle", "--target", "coreml"], "are of --check; what to write --program says"),
        (["bundle", "--json"], "are of --check; what to write --program says"),
    ],
)
def test_export_says_what_is_missing_or_of_check_alone(arguments: list[str], said: str) -> None:
    error = fails("export", "student.safetensors", *arguments)
    assert isinstance(error, InputError)
    assert said in str(error)


def test_an_embedded_student_is_found_by_its_size() -> None:
    assert find_student(Path("nano")) == embedded("nano") / "student.safetensors"
    assert find_student(Path("runs/student.safetensors")) == Path("runs/student.safetensors")


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


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("q", ["--program", "tensorrt-int8"], "q has no tensorrt graphs, of which tensorrt-int8 is made"),
        ("q", ["--tile", "80"], "q was quantised for tiles of 272, not 80; give --tile 272, or quantise again"),
        ("nowhere", [], "nowhere holds no quantize.json; expected a folder that `burnish quantize` wrote"),
    ],
)
def test_graphs_of_which_no_program_is_made_are_refused(
    tmp_path: Path, name: str, arguments: list[str], said: str
) -> None:
    (tmp_path / "q" / "xnnpack").mkdir(parents=True)
    record = Record(config=QuantizeConfig(), tile=272, kept_in_float={})
    (tmp_path / "q" / MARKER).write_text(record.model_dump_json())
    student, photos = str(EMBEDDED / "student.safetensors"), str(PHOTOS / "dev")
    error = fails(
        "export", student, str(tmp_path / "b"), "--calibration", photos, "--quantized", str(tmp_path / name), *arguments
    )
    assert isinstance(error, InputError)
    assert said in str(error)


def test_quantising_for_one_target_keeps_the_graphs_of_others(tmp_path: Path) -> None:
    for target in ("xnnpack", "coreml", "tensorrt"):
        (tmp_path / target).mkdir()
    (tmp_path / MARKER).touch()
    student, photos = str(EMBEDDED / "student.safetensors"), str(PHOTOS / "dev")
    error = fails("quantize", student, str(tmp_path), "--calibration", photos, "--target", "xnnpack")
    assert isinstance(error, InputError)
    assert "also holds graphs for coreml and tensorrt, which would be lost" in str(error)


@pytest.mark.parametrize("verb", ["quantize", "export"])
def test_a_destination_that_is_taken_is_refused_before_the_work(tmp_path: Path, verb: str) -> None:
    (tmp_path / "precious").touch()
    # That the student is not even looked for says that nothing was done.
    error = fails(verb, str(tmp_path / "none"), str(tmp_path), "--calibration", str(PHOTOS / "dev"))
    assert isinstance(error, InputError)
    assert "exists and holds no" in str(error)


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
