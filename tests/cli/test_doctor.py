"""doctor: what is installed against what was tried; a broken installation is one line and exit status 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from burnish.cli import doctor
from burnish.cli.main import app
from burnish.runtime.compatibility import matrix
from typer.testing import CliRunner


def test_this_installation_is_sound() -> None:
    result = doctor.diagnose()
    assert result["problems"] == []
    assert set(result["libraries"]) == set(matrix().libraries)
    assert doctor.describe(result).endswith("no problems")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without loading everything that is installed."""
    monkeypatch.setattr(doctor, "_import_problems", lambda found: [])
    return monkeypatch


def test_another_version_is_a_problem_and_says_what_to_install(quick: pytest.MonkeyPatch) -> None:
    real = doctor._installed
    quick.setattr(doctor, "_installed", lambda name: "1.4.1" if name == "executorch" else real(name))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"] == ["executorch 1.4.1 is outside ==1.5.1; pip install 'burnish[export]'"]


def test_what_is_not_installed_is_no_problem(quick: pytest.MonkeyPatch) -> None:
    real = doctor._installed
    quick.setattr(doctor, "_installed", lambda name: None if name in ("openvino", "torch") else real(name))
    quick.setattr(doctor.shutil, "which", lambda tool: None)
    result = doctor.diagnose()
    assert result["problems"] == []
    assert "openvino: pip install 'burnish[openvino]'" in result["missing"]
    assert "onnxruntime" in result["targets"]["onnx"].partition(";")[0]
    assert any(line.startswith("adb: ") for line in result["missing"])


def test_every_target_says_what_runs_it_and_what_it_needs(quick: pytest.MonkeyPatch) -> None:
    quick.setattr(doctor, "_has_cuda", lambda: False)
    quick.setattr(doctor.backends, "available", lambda name: name in ("onnxruntime", "tensorrt"))
    targets = doctor.diagnose()["targets"]
    assert set(targets) == {program.rpartition("-")[0] for program in matrix().programs}
    assert targets["onnx"] == "runs here with onnxruntime; openvino needs pip install 'burnish[openvino]'"
    assert targets["tensorrt"].startswith("runs here with onnxruntime; ")
    assert "tensorrt needs an NVIDIA GPU with its driver" in targets["tensorrt"]
    assert targets["executorch-xnnpack"] == "nothing here runs it; executorch needs pip install 'burnish[export]'"
    assert "coreml" in targets["coreml"]


def test_two_packages_of_one_library_are_a_problem(quick: pytest.MonkeyPatch) -> None:
    real = doctor._installed
    quick.setattr(doctor, "_installed", lambda name: "1.31.1" if name == "onnxruntime-gpu" else real(name))
    assert any("onnxruntime-gpu" in line and "uninstall" in line for line in doctor.diagnose()["problems"])


def test_what_fails_or_crashes_while_loading_is_named_and_the_rest_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_one.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    (tmp_path / "broken_two.py").write_text("import os; os.abort()")
    (tmp_path / "broken_three.py").write_text("raise OSError('no such device')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found: dict[str, str | None] = dict.fromkeys(("broken_one", "json", "broken_two", "absent", "broken_three"), "1.0")
    problems = doctor._import_problems(found | {"absent": None})
    assert problems == [
        "broken_one is installed but does not load: libnvinfer.so.11: cannot open shared object file",
        "broken_two is installed but does not load: the process ended with status -6",
        "broken_three is installed but does not load: no such device",
    ]
