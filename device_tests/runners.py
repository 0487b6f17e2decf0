"""Which runner does a program's jobs on a device: ours in C++, ours in Python, or the demo app of an iPhone."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import requires
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

from ..runtime.bundle import Program
from ..runtime.errors import DeviceError
from .devices import Device, Identity
from .devices.workspace import Workspace
from .toolchain import BINARY, runner_files

COREML_TARGETS = ("coreml", "coreml-images", "coreml-ios17")
# Programs that the Python runner does: system, then target → backend there.
PYTHON_TARGETS = {
    "linux": {"onnx": "onnxruntime", "tensorrt": "tensorrt"},
    "macos": {"onnx": "onnxruntime"} | dict.fromkeys(COREML_TARGETS, "coreml"),
}
NATIVE_TARGETS = ("executorch-xnnpack",)
# What the Python runner is made of, besides burnish.runtime.
_MODULES = ("__init__.py", "job.py", "python_runner.py", "rails.py", "records.py")
# Found, not imported: that takes long on a small machine.
_NEEDED = (
    "import sys; from importlib.util import find_spec as find; "
    "sys.exit(any(find(name) is None for name in 'numpy onnxruntime PIL png pydantic safetensors'.split()))"
)
INSTALL_S = 900.0


class Runner(ABC):
    """Does jobs with the programs of some targets. `name`: its folder in a workspace."""

    name: str
    backend: str = ""
    file: str = ""
    """The one file of a program that it loads; none where it takes the folder."""

    @abstractmethod
    def files(self) -> AbstractContextManager[list[Path]]:
        """The files to push. Raises BackendError where they cannot be built."""

    @abstractmethod
    def command(self, space: Workspace) -> list[str]:
        """What to run; the folders of a job and of its results are added. Raises DeviceError where something is missing."""


@dataclass(frozen=True)
class NativeRunner(Runner):
    """`device_tests/runner`, with ExecuTorch's libraries beside it."""

    platform: str
    name = "native"
    file = "student.pte"

    @contextmanager
    def files(self) -> Generator[list[Path]]:
        yield runner_files(self.platform)

    def command(self, space: Workspace) -> list[str]:
        return [*space.device.launcher, space.path(self.name, BINARY)]


@dataclass(frozen=True)
class PythonRunner(Runner):
    """`python_runner.py` and the runtime in one archive, which Python imports as it is."""

    backend: str  # pyright: ignore[reportIncompatibleVariableOverride]
    name = "python"
    archive = "burnish.zip"

    @contextmanager
    def files(self) -> Generator[list[Path]]:
        with TemporaryDirectory() as folder:
            path = Path(folder) / self.archive
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("burnish/", "")  # a namespace, which Python finds only where the folder has an entry
                for package, names in (("runtime", None), ("device_tests", _MODULES)):
                    with as_file(files(f"burnish.{package}")) as root:
                        for source in sorted(Path(root).rglob("*.py")):
                            inside = source.relative_to(root).as_posix()
                            if names is None or inside in names:
                                archive.write(source, f"burnish/{package}/{inside}")
            yield [path]

    def command(self, space: Workspace) -> list[str]:
        archive = f"PYTHONPATH={space.path(self.name, self.archive)}"
        return ["env", archive, *self._python(space), "-m", "burnish.device_tests.python_runner"]

    def _python(self, space: Workspace) -> list[str]:
        """An interpreter there that has what the runtime needs: its own, or one that is set up in the workspace."""
        device = space.device
        own, ours = [*device.launcher, device.python], [*device.launcher, space.path("venv", "bin", "python")]
        for python in (own, ours):
            if device.run([*python, "-c", _NEEDED], 60.0).status == 0:
                return python
        device.check([*own, "-m", "venv", space.path("venv")], INSTALL_S)
        device.check([*ours, "-m", "pip", "install", "--quiet", *_requirements()], INSTALL_S)
        return ours


@dataclass(frozen=True)
class AppRunner(Runner):
    """The demo app of an iPhone, which is installed already and takes the same jobs."""

    name = "app"

    @contextmanager
    def files(self) -> Generator[list[Path]]:
        yield []

    def command(self, space: Workspace) -> list[str]:
        return []


def runner_for(device: Device, identity: Identity, program: Program) -> Runner:
    """The runner that can do jobs with a program on a device. Raises DeviceError when there is none."""
    os = identity.platform.partition("-")[0]
    if program.target in NATIVE_TARGETS and os in ("linux", "android"):
        return NativeRunner(identity.platform)
    backend = PYTHON_TARGETS.get(os, {}).get(program.target)
    if backend is not None and device.has_python:
        return PythonRunner(backend)
    if program.target in COREML_TARGETS and os == "ios":
        return AppRunner()
    raise DeviceError(f"{device.spec}: nothing there runs {program.name}; choose others with --program")


def _requirements() -> list[str]:
    """What burnish needs without extras."""
    return [line for line in requires("burnish") or () if "extra ==" not in line]
