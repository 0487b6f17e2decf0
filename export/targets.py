"""The table of programs: what writes each, what executes it here, how far it may be from the full-precision student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..distill.methods import methods
from ..distill.student import Student
from ..runtime.backends import Session, load_session
from ..runtime.backends.base import Encoded
from ..runtime.errors import BackendError, InputError
from .context import Context, versions


@dataclass(frozen=True)
class Target:
    """One program. `module` and `writer` name the function that writes it, imported when used.

    `backend` executes it here. `feature_bytes`: of a number in features and tokens. `asked`: only written when asked for.
    """

    name: str
    module: str
    writer: str
    backend: str | None
    least_psnr: float
    feature_bytes: int = 4
    asked: bool = False

    @property
    def kind(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def precision(self) -> str:
        return self.name.rpartition("-")[2]

    @property
    def quantized(self) -> bool:
        """Whether it is made from `burnish quantize`'s graphs."""
        return self.precision == "int8"

    def _module(self) -> Any:
        return import_module(f".{self.module}", __package__)

    def write(self, context: Context, folder: Path) -> None:
        """Write the program's files into `folder`."""
        write: Callable[[Context, Path], None] = getattr(self._module(), self.writer)
        write(context, folder)

    def write_pack(self, context: Context, pack: Student, folder: Path, path: Path) -> bool:
        """Write a pack of experts for the program in `folder`, if this target can exchange them; whether it can."""
        function = self.writer.replace("write_", "write_pack_")
        write: Callable[[Context, Student, Path, Path], None] | None = getattr(self._module(), function, None)
        if write is not None:
            write(context, pack, folder, path)
        return write is not None

    def made_with(self) -> dict[str, str]:
        """Versions of the libraries that make it."""
        return versions(*self._module().MADE_WITH)

    def delegates(self, folder: Path) -> dict[str, dict[str, int]]:
        """Partitions of the written program, by method and delegate; empty where the target has no delegates."""
        count: Callable[[Path], dict[str, dict[str, int]]] | None = getattr(self._module(), "delegates", None)
        return count(folder) if count else {}

    def load(self, folder: Path, experts: Path | None = None) -> Session | None:
        """What was written, loaded by the backend that executes it here; None without one. `experts`: another pack."""
        return None if self.backend is None else load_session(self.backend, folder, experts=experts)

    def verify(self, context: Context, folder: Path, session: Session | None) -> str:
        """Run what was written on real trajectories and compare; how it was verified. Raises BackendError."""
        check: Callable[[Context, Path], str] | None = getattr(self._module(), "check", None)
        said = check(context, folder) if check else ""
        if session is None:
            return said
        agreement = _agreement(context, session)
        # A wrong program is wrong on most pictures; what int8 costs single ones is the quality gate's to judge.
        median, worst = float(np.median(agreement)), min(agreement)
        if median < self.least_psnr:
            raise BackendError(
                f"{self.name}: restored pictures are {median:.1f} dB from the full-precision student in the median; "
                f"expected at least {self.least_psnr:.0f} dB"
            )
        executed = (
            f"executed by {self.backend}, {median:.1f} dB from the full-precision student (median; worst {worst:.1f})"
        )
        return "; ".join(filter(None, (executed, said)))


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("onnx-fp32", "onnx", "write_fp32", "onnxruntime", 80.0),
        # Faster than fp32 with OpenVINO alone, so not part of every bundle.
        Target("onnx-int8", "onnx", "write_int8", "onnxruntime", 30.0, asked=True),
        Target("executorch-xnnpack-fp32", "executorch", "write_fp32", "executorch", 80.0),
        Target("executorch-xnnpack-int8", "executorch", "write_int8", "executorch", 30.0),
        Target("coreml-fp16", "coreml", "write_fp16", None, 0.0),
        Target("tensorrt-fp16", "tensorrt", "write_fp16", "onnxruntime", 60.0, feature_bytes=2),
        Target("tensorrt-int8", "tensorrt", "write_int8", "onnxruntime", 25.0),
    )
}


def select(names: list[str] | None) -> list[Target]:
    """The targets of the given names; without any, all that need not be asked for. Raises InputError."""
    unknown = [name for name in names or () if name not in TARGETS]
    if unknown:
        raise InputError(f"unknown program {unknown[0]!r}; expected some of {', '.join(TARGETS)}")
    return [TARGETS[name] for name in names] if names else [t for t in TARGETS.values() if not t.asked]


def _agreement(context: Context, session: Session) -> list[float]:
    """PSNR between the session's and the student's restored pictures, both methods run by the session."""
    refine = methods(context.student)["refine"]
    agreement: list[float] = []
    original: Encoded | None = None
    for (image,), row in zip(context.samples["encode"], context.samples["refine"], strict=True):
        with torch.no_grad():
            expected = refine(*row)[0].numpy()
        # The session encodes for itself: both methods are tried, and equalised programs have features of other scales.
        estimate = session.encode(image.numpy())
        if original is None or torch.equal(row[2], row[4]):  # a trajectory begins where both roles are one picture
            original = estimate
        restored, _ = session.refine(row[0].numpy(), original, estimate, row[7].numpy())
        error = float(np.mean((restored - expected) ** 2))
        agreement.append(100.0 if error < 1e-10 else float(-10 * np.log10(error)))
    return agreement
