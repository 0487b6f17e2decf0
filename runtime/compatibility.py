"""The compatibility matrix: which versions burnish was tried with, and what executed each kind of program."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).resolve().parent / "compatibility.json"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Library(_Entry):
    """A library: versions that are allowed, the one the tests last ran with, and the extra that installs it."""

    range: str
    tested: str
    extra: str


class Trial(_Entry):
    """How a kind of program was tried on `machine`, by what; PSNR to the untrained student that it must reach."""

    how: Literal["backend", "reference evaluator", "builder", "emulator"]
    by: str
    least_psnr: float | None


class Opset(_Entry):
    """Highest ONNX opset and IR version of a reader."""

    opset: int
    ir: int


class Onnx(_Entry):
    """What ONNX programs are written in, and the oldest readers that it is chosen for."""

    opset: int
    ir: int
    readers: dict[str, Opset]


class Matrix(_Entry):
    """compatibility.json."""

    format: Literal[1]
    machine: str
    python: dict[str, tuple[str, ...]] = Field(description="what for → versions")
    libraries: dict[str, Library]
    onnx: Onnx
    programs: dict[str, tuple[Trial, ...]]
    never_run: dict[str, str] = Field(description="what nothing here has executed, and why")
    tools: dict[str, str] = Field(description="program on the path → what needs it")


def matrix() -> Matrix:
    """The matrix this version of burnish ships."""
    return Matrix.model_validate_json(FILE.read_bytes())
