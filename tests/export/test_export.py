"""Exports: written programs are executed and compared; a failed export leaves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.device_tests.eager import EagerSession
from burnish.distill.student import Student
from burnish.distill.weights import Trained, read_student
from burnish.export.context import Context
from burnish.export.targets import TARGETS, Target, select
from burnish.export.writer import write_bundle
from burnish.quantize.calibration import Samples
from burnish.runtime import Bundle, InputError, backends
from burnish.runtime.bundle import Provenance
from burnish.runtime.errors import BackendError
from burnish.runtime.routing import Routing, gate_tensor, given_gates
from numpy.typing import NDArray


@pytest.mark.parametrize("method", ["refine", "refine_noise"])
@pytest.mark.parametrize("program", ["onnx-fp32", "executorch-xnnpack-fp32"])
def test_float_programs_equal_eager(
    bundle_path: Path, specialised: Trained, photo: NDArray[np.float32], program: str, method: str
) -> None:
    bundle = Bundle.open(bundle_path)
    backend, chosen = backends.choose(bundle, "auto", program)
    session, eager = backends.load(bundle, backend, chosen), EagerSession(specialised.student)
    first, second = (np.ascontiguousarray(photo[y : y + 64, 90:154].transpose(2, 0, 1)[None]) for y in (100, 200))
    gates = gate_tensor(
        Routing(), given_gates(Routing(), {"rain": 0.5, "detail": 1.0}), specialised.student.config.rank
    )
    results = []
    for runner in (session, eager):
        original, estimate = runner.encode(first), runner.encode(second)
        results.append((original, estimate, *runner.refine(second, original, estimate, gates, method)))
    (original, estimate, restored, quality), (_, expected_estimate, expected, expected_quality) = results
    assert np.abs(restored - expected).max() < 1e-5
    assert quality == pytest.approx(expected_quality, abs=1e-5)
    assert estimate.logits == pytest.approx(expected_estimate.logits, abs=1e-4)
    for feature, wanted in zip(estimate.features, expected_estimate.features, strict=True):
        feature, wanted = np.asarray(feature), np.asarray(wanted)
        assert np.abs(feature - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_a_failing_program_leaves_no_bundle(student: Student, samples: Samples, tmp_path: Path) -> None:
    class Failing(Target):
        def write(self, context: Context, folder: Path) -> None:
            (folder / "half").write_text("written")
            raise BackendError("lowering failed")

    targets = [TARGETS["onnx-fp32"], Failing("onnx-fp32", "onnx", "write_fp32", "onnxruntime", 80.0)]
    targets[1] = Failing("executorch-xnnpack-fp32", "executorch", "write_fp32", "executorch", 80.0)
    context = Context(Trained(student), 64, None, samples)
    with pytest.raises(BackendError, match="lowering failed"):
        write_bundle(tmp_path / "a.bundle", context, targets, "a test", lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_wrong_program_is_refused(student: Student, samples: Samples, tmp_path: Path) -> None:
    class Wrong(Target):
        def write(self, context: Context, folder: Path) -> None:
            torch.manual_seed(1)
            other = Student(context.student.config).eval()
            super().write(Context(Trained(other), context.tile, None, context.samples), folder)

    target = Wrong("onnx-fp32", "onnx", "write_fp32", "onnxruntime", 80.0)
    with pytest.raises(BackendError, match="from the full-precision student"):
        write_bundle(
            tmp_path / "a.bundle",
            Context(Trained(student), 64, None, samples),
            [target],
            "a test",
            lambda _: None,
        )
    assert not list(tmp_path.iterdir())


def test_what_is_no_bundle_is_not_overwritten(student: Student, samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    context = Context(Trained(student), 64, None, samples)
    with pytest.raises(InputError, match="holds no bundle"):
        write_bundle(tmp_path / "mine", context, [TARGETS["onnx-fp32"]], "a test", lambda _: None)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_programs_are_named() -> None:
    with pytest.raises(InputError, match="onnx-fp64"):
        select(["onnx-fp64"])


def test_a_bundle_says_how_it_was_made(bundle_path: Path) -> None:
    manifest = Bundle.open(bundle_path).manifest
    assert manifest.provenance.commands == ("burnish quantize", "a test")
    assert manifest.licence == "not stated"


def test_graphs_of_another_version_are_refused(student: Student, samples: Samples, tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "quantize.json").write_text('{"config": {"version": 0}}')
    context = Context(Trained(student), 64, tmp_path / "graphs", samples)
    with pytest.raises(InputError, match="run `burnish quantize` again"):
        write_bundle(tmp_path / "a.bundle", context, [TARGETS["onnx-fp32"]], "a test", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["graphs"]


def test_a_student_taken_out_of_a_bundle_says_nothing_twice(student: Student, samples: Samples, tmp_path: Path) -> None:
    trained = Trained(student, provenance=Provenance(commands=("burnish distill mine.yaml",), licence="CC0-1.0"))
    for name in ("first", "second"):
        context = Context(trained, 64, None, samples)
        path = write_bundle(tmp_path / f"{name}.bundle", context, [TARGETS["onnx-fp32"]], "an export", lambda _: None)
        manifest = Bundle.open(path).manifest
        assert manifest.provenance.commands == ("burnish distill mine.yaml", "an export")
        assert manifest.licence == "CC0-1.0"
        trained = read_student(path / "student.safetensors")
