"""A bundle tests itself: its programs answer as where they were made, and one that does not is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from burnish.cli.main import app
from burnish.export.targets import TARGETS
from burnish.runtime import Bundle, backends
from burnish.runtime.backends import Encoded, Session
from burnish.runtime.bundle import embedded, sha256
from burnish.runtime.errors import BundleError
from burnish.runtime.methods import REFINE, refiners
from burnish.runtime.selftest import INPUTS, answer, read_inputs, verify
from burnish.runtime.tiles import Array
from safetensors.numpy import load_file, save_file
from shared import BUNDLED
from typer.testing import CliRunner


class Alike:
    """A program whose specialists do what refine does."""

    def __init__(self, session: Session) -> None:
        self.encode = session.encode
        self._refine = session.refine

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        return self._refine(current, original, estimate, gates)


EXECUTED = [target.name for target in BUNDLED if target.backend is not None]


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy.bundle"))


def test_inputs_and_answers_are_files_of_the_bundle_by_hash(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    test = bundle.manifest.self_test
    assert test is not None
    assert [e.program for e in test.expected] == EXECUTED
    listed = {test.inputs.path, *(e.file.path for e in test.expected)}
    assert listed == {p.relative_to(bundle_path).as_posix() for p in (bundle_path / "tests").iterdir()}
    for entry in (test.inputs, *(e.file for e in test.expected)):
        bundle.file(entry)
    inputs = load_file(bundle_path / INPUTS)
    assert inputs["image"].dtype == inputs["current"].dtype == np.uint8
    assert (inputs["image"] != inputs["current"]).any()  # both roles differ, or one that is lost would not show


@pytest.mark.parametrize("program", EXECUTED)
def test_every_program_answers_as_expected_and_noise_does_not(bundle_path: Path, program: str) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.manifest.self_test is not None
    expected = next(e for e in bundle.manifest.self_test.expected if e.program == program)
    backend = TARGETS[program].backend
    assert backend is not None
    session = backends.load(bundle, backend, bundle.program(program), 1)
    outcome = verify(bundle, expected, session)
    assert outcome.passed
    assert outcome.psnr > 90  # the very machine: rounding to 16 bits alone
    inputs = read_inputs(bundle)
    methods = refiners(bundle.manifest.routing.specialists)
    lost = answer(session, inputs._replace(image=inputs.current), methods)
    kept = answer(session, inputs, methods)
    assert (np.abs(lost.restored - kept.restored).max((1, 2, 3)) > 1e-3).all()
    # A specialist is tested as well: one that gives what refine does would be found.
    assert not verify(bundle, expected, Alike(session)).passed


@pytest.mark.parametrize("change", [lambda t: t.pop("quality"), lambda t: t.update(restored=t["restored"][:1])])
def test_an_answer_of_another_kind_is_refused(copy: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    content = json.loads((copy / "bundle.json").read_text())
    entry = next(e for e in content["self_test"]["expected"] if e["program"] == "onnx-fp32")["file"]
    tensors = load_file(copy / entry["path"])
    change(tensors)
    save_file(tensors, copy / entry["path"])
    entry |= {"bytes": (copy / entry["path"]).stat().st_size, "sha256": sha256(copy / entry["path"])}
    (copy / "bundle.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["inspect", str(copy), "--run"])
    assert isinstance(done.exception, BundleError)  # one line and exit status 2, by cli.main
    assert "another kind of answer; export the bundle again" in str(done.exception)


@pytest.mark.parametrize("name", ["small", "nano"])
def test_embedded_programs_answer_as_where_they_were_made(name: str) -> None:
    bundle = Bundle.open(embedded(name))
    expected = next(e for e in bundle.manifest.self_test.expected if e.program == "onnx-fp32")
    session = backends.load(bundle, "onnxruntime", bundle.program("onnx-fp32"))
    outcome = verify(bundle, expected, session)
    assert outcome.passed, outcome


def test_another_students_program_is_found(copy: Path) -> None:
    bundle = Bundle.open(copy)
    assert bundle.manifest.self_test is not None
    expected = next(e for e in bundle.manifest.self_test.expected if e.program == "onnx-fp32")
    session = backends.load(bundle, "onnxruntime", bundle.program("onnx-fp32"), 1)
    wanted = load_file(copy / expected.file.path)
    wanted["restored"] = np.roll(wanted["restored"], 1, axis=-1)
    save_file(wanted, copy / expected.file.path)
    with pytest.raises(BundleError, match="damaged"):
        verify(bundle, expected, session)
    content = json.loads((copy / "bundle.json").read_text())
    for entry in content["self_test"]["expected"]:
        entry["file"]["sha256"] = sha256(copy / entry["file"]["path"])
    (copy / "bundle.json").write_text(json.dumps(content))
    changed = Bundle.open(copy)
    assert changed.manifest.self_test is not None
    outcome = verify(changed, next(e for e in changed.manifest.self_test.expected if e.program == "onnx-fp32"), session)
    assert not outcome.passed
    assert "NOT as expected" in str(outcome)


def test_inspect_runs_the_programs_and_says_what_is_in_the_bundle(bundle_path: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(bundle_path), "--run"])
    assert done.exit_code == 0, done.stdout
    for name in EXECUTED:
        assert f"{name}: as expected" in done.stdout
    assert "encode: 1 × XnnpackBackend, 0 operations outside" in done.stdout
    assert "crossing encode" in done.stdout
    assert "made with torch" in done.stdout


def test_a_bundle_without_a_test_says_so(copy: Path) -> None:
    content = json.loads((copy / "bundle.json").read_text())
    content["self_test"] = None
    (copy / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="brings no inputs"):
        read_inputs(Bundle.open(copy))
    assert "own test: none" in CliRunner().invoke(app, ["inspect", str(copy)]).stdout
