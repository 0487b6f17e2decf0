"""What every exporter works from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from ..distill.recipe import Frozen
from ..distill.student import Student
from ..distill.weights import Trained
from ..quantize.calibration import Samples

WEIGHTS_LICENCE = "CC BY-SA 4.0"


class CoreMLOptions(Frozen):
    """How Core ML programs are packed: for which iOS, and whether pictures go in and out as images or as tensors."""

    ios: Literal[17, 18] = 18
    images: bool = False


@dataclass(frozen=True)
class Context:
    """The full-precision student and its tile, the folder of its quantised graphs (None: float programs only), and
    samples of real trajectories that written programs are compared on."""

    trained: Trained
    tile: int
    quantized: Path | None
    samples: Samples
    coreml: CoreMLOptions = CoreMLOptions()

    @property
    def student(self) -> Student:
        return self.trained.student


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, stamped into what they made."""
    return {package: version(package) for package in packages}
