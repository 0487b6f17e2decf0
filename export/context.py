"""What every exporter works from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..distill.student import Student
from ..distill.weights import Trained
from ..quantize.calibration import Samples


@dataclass(frozen=True)
class Context:
    """The full-precision student and its tile, the folder of its quantised graphs (None: float programs only), and
    samples of real trajectories that written programs are compared on."""

    trained: Trained
    tile: int
    quantized: Path | None
    samples: Samples

    @property
    def student(self) -> Student:
        return self.trained.student


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, stamped into what they made."""
    return {package: version(package) for package in packages}
