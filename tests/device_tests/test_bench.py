"""Programs on their way to a device: folders within folders, and who runs which."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from burnish.device_tests.bench import Bench
from burnish.device_tests.devices import Identity
from burnish.device_tests.devices.host import HostDevice
from burnish.device_tests.runners import AppRunner, NativeRunner, PythonRunner, runner_for
from burnish.runtime.bundle import EMBEDDED, Bundle, Program
from burnish.runtime.errors import DeviceError

PACKAGE = {
    "Manifest.json": b"{}",
    "Data/com.apple.CoreML/model.mlmodel": b"m",
    "Data/com.apple.CoreML/weights/w.bin": b"w",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The embedded one with a program that is a folder of folders, and a file in it that no manifest knows."""
    copy = tmp_path / "photo.bundle"
    shutil.copytree(EMBEDDED, copy)
    files = []
    for name, content in PACKAGE.items():
        path = copy / "programs" / "coreml-fp16" / "student.mlpackage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        where = path.relative_to(copy).as_posix()
        files.append({"path": where, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    (copy / "programs" / "coreml-fp16" / ".DS_Store").write_bytes(b"left by a Finder")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["programs"].append({"target": "coreml", "precision": "fp16", "files": files})
    (copy / "bundle.json").write_text(json.dumps(manifest))
    return Bundle.open(copy)


def test_a_program_arrives_with_its_folders_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    scratch = tmp_path / "device"
    scratch.mkdir()
    with Bench(HostDevice(scratch=scratch), bundle) as bench:
        place = bench._push_program(bundle.program("coreml-fp16"), AppRunner())
        (space,) = scratch.iterdir()
        arrived = {p.relative_to(space / place).as_posix(): p.read_bytes() for p in space.rglob("*") if p.is_file()}
    assert arrived == {f"student.mlpackage/{name}": content for name, content in PACKAGE.items()}
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "target", "runner"),
    [
        ("linux-aarch64", "executorch-xnnpack", NativeRunner("linux-aarch64")),
        ("android-arm64", "executorch-xnnpack", NativeRunner("android-arm64")),
        ("linux-aarch64", "tensorrt", PythonRunner("tensorrt")),
        ("linux-x86_64", "onnx", PythonRunner("onnxruntime")),
        ("macos-arm64", "onnx", PythonRunner("onnxruntime")),
        ("macos-arm64", "coreml", PythonRunner("coreml")),
        ("macos-arm64", "coreml-ios17", PythonRunner("coreml")),
        ("ios-arm64", "coreml-images", AppRunner()),
        ("android-arm64", "onnx", None),
        ("linux-x86_64", "coreml", None),
        ("macos-arm64", "executorch-xnnpack", None),
    ],
)
def test_who_runs_what_where(platform: str, target: str, runner: object) -> None:
    program = Program(target=target, precision="fp16", files=())
    identity = Identity(platform=platform, model="a device")
    if runner is not None:
        assert runner_for(HostDevice(), identity, program) == runner
        return
    with pytest.raises(DeviceError, match=r"nothing there runs .*; choose others"):
        runner_for(HostDevice(), identity, program)
