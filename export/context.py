"""What every exporter works from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from ..distill.student import Student
from ..quantize.calibration import Samples
from ..quantize.config import QuantizeConfig


@dataclass(frozen=True)
class Context:
    """The full-precision student, its tile, and calibration samples along real trajectories."""

    student: Student
    tile: int
    samples: Samples
    config: QuantizeConfig


class Exporter(Protocol):
    """Writes one program into an empty folder."""

    def __call__(self, context: Context, folder: Path) -> None: ...


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, stamped into what they made."""
    return {package: version(package) for package in packages}
