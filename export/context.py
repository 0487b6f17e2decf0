"""What every exporter works from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from ..distill.student import Student
from ..distill.weights import Trained
from ..quantize.calibration import Samples


@dataclass(frozen=True)
class Context:
    """The full-precision student and its tile, the folder of its quantised graphs (None: float programs only), samples of
    real trajectories that written programs are compared on, and students whose experts are exchanged for its own, by name."""

    trained: Trained
    tile: int
    quantized: Path | None
    samples: Samples
    packs: Mapping[str, Student] = field(default_factory=dict)

    @property
    def student(self) -> Student:
        return self.trained.student

    @property
    def licence(self) -> str:
        """Of the weights, in words."""
        return self.trained.provenance.licence or "not stated"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, stamped into what they made."""
    return {package: version(package) for package in packages}
