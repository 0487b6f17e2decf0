"""What tests share: photographs, an untrained student, and a bundle of it with every program."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from burnish.distill.methods import methods
from burnish.distill.specialists import add_specialist
from burnish.distill.student import SIZES, Student
from burnish.distill.weights import Trained
from burnish.export.context import Context
from burnish.export.targets import select
from burnish.export.writer import write_bundle
from burnish.quantize.calibration import Samples, draw_samples
from burnish.quantize.config import QuantizeConfig
from burnish.quantize.stage import quantize_student
from burnish.runtime import Restorer
from burnish.runtime.pictures import read
from burnish.runtime.routing import Routing
from filelock import FileLock
from numpy.typing import NDArray
from shared import BUNDLED, PHOTOS, TILE
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

torch.set_num_threads(1)
# Folders whose tests share a machine that is started, or tools that are installed, once.
TOGETHER = ("device_tests", "android", "ios")


class ByFile(LoadScopeScheduling):
    """Several processes share the tests by file, and some folders go to one process as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        folder = Path(file).parent
        return str(folder) if folder.name in TOGETHER else file


@pytest.hookimpl(optionalhook=True)  # pytest alone may run them too
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured and built here once is remembered for the tests alone, also by the commands they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _adb_folder() -> None:
    """adb makes its folder itself, but of two that do at the same time, one aborts."""
    (Path.home() / ".android").mkdir(mode=0o750, exist_ok=True)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """What takes long is made by the process that needs it first, for all that share the tests."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{place}.lock"):
        return place if place.exists() else make(place)


@pytest.fixture(scope="session")
def photo() -> NDArray[np.float32]:
    """A real photograph, float32 H×W×3."""
    return read(PHOTOS / "eval" / "kodim23.png").rgb


@pytest.fixture(scope="session")
def student() -> Student:
    """An untrained nano student whose output is far from the identity, so that a wrong program is noticed."""
    torch.manual_seed(0)
    student = Student(SIZES["nano"]).eval()
    with torch.no_grad():
        student.refiner.correction.bias.weight.mul_(3)
        for module in student.modules():
            if hasattr(module, "lora_b"):
                module.lora_b.weight.normal_(std=0.05)
    return student


@pytest.fixture(scope="session")
def specialised(student: Student) -> Trained:
    """The same with another refiner for noise: what is exported and quantised here."""
    torch.manual_seed(1)
    other = copy.deepcopy(student)
    with torch.no_grad():
        for weights in other.refiner.parameters():
            weights.mul_(1 + 0.2 * torch.randn_like(weights))
    return add_specialist(Trained(student), "noise", Trained(other))


@pytest.fixture(scope="session")
def quantize_config() -> QuantizeConfig:
    return QuantizeConfig(pictures=4, iterations=2)


@pytest.fixture(scope="session")
def in_float(specialised: Trained, quantize_config: QuantizeConfig) -> int:
    """Numbers of the student in the parts that int8 programs leave in float."""
    parts = [module for method in methods(specialised.student).values() for module in method.named_modules()]
    kept = [module for name, module in parts if name in quantize_config.left_in_float]
    return sum(numbers.numel() for module in kept for numbers in module.parameters())


@pytest.fixture(scope="session")
def samples(specialised: Trained, quantize_config: QuantizeConfig) -> Samples:
    return draw_samples(specialised.student, Routing(), PHOTOS / "dev", TILE, quantize_config)


@pytest.fixture(scope="session")
def quantized(specialised: Trained, quantize_config: QuantizeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(out: Path) -> Path:
        return quantize_student(specialised, PHOTOS / "dev", TILE, out, quantize_config, lambda _: None)

    return _once(tmp_path_factory, "graphs", make)


@pytest.fixture(scope="session")
def bundle_path(
    specialised: Trained, quantized: Path, samples: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle of the untrained student with the programs in BUNDLED."""
    context = Context(specialised, TILE, quantized, samples)
    return _once(
        tmp_path_factory, "nano.bundle", lambda out: write_bundle(out, context, BUNDLED, "a test", lambda _: None)
    )


@pytest.fixture(scope="session")
def onnx_bundle(specialised: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light bundle for the runtime's own tests: ONNX alone, which takes seconds to make."""

    def make(out: Path) -> Path:
        few = draw_samples(
            specialised.student, Routing(), PHOTOS / "dev", TILE, QuantizeConfig(pictures=2, iterations=1)
        )
        context = Context(specialised, TILE, None, few)
        return write_bundle(out, context, select(["onnx-fp32"]), "a test", lambda _: None)

    return _once(tmp_path_factory, "light.bundle", make)


@pytest.fixture
def restorer(onnx_bundle: Path) -> Restorer:
    return Restorer.load(onnx_bundle, backend="onnxruntime", threads=1)


@pytest.fixture
def pixels(photo: NDArray[np.float32]) -> NDArray[np.uint8]:
    """150 × 130 pixels of a photograph: several tiles."""
    return np.round(photo[100:250, 200:330] * 255).astype(np.uint8)
