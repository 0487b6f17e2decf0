"""The table of programs: what writes each, what executes it here, how far it may be from the full-precision student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..distill.methods import methods
from ..distill.student import Student
from ..quantize.graphs import load_graphs
from ..runtime.backends import Session, load_session
from ..runtime.errors import BackendError, InputError
from .agreement import Agreement, restored_by, restored_by_methods
from .context import Context, versions


@dataclass(frozen=True)
class Target:
    """One program. `module` and `writer` name the function that writes it, imported when used.

    `backend` executes it here. `least_psnr`: median to the full-precision student. `feature_bytes`: of a number in features
    and tokens. `asked`: only written when asked for. `quantizer`: whose graphs it is made from; `least_graph_psnr`: median
    to them.
    """

    name: str
    module: str
    writer: str
    backend: str | None
    least_psnr: float
    feature_bytes: int = 4
    asked: bool = False
    quantizer: str | None = None
    least_graph_psnr: float = 0.0

    @property
    def kind(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def precision(self) -> str:
        return self.name.rpartition("-")[2]

    @property
    def quantized(self) -> bool:
        """Whether it is made from `burnish quantize`'s graphs."""
        return self.quantizer is not None

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

    def boundary_bytes(self, folder: Path) -> dict[str, int]:
        """Bytes in and out of each written method, where the program's types say so; empty elsewhere."""
        count: Callable[[Path], dict[str, int]] | None = getattr(self._module(), "boundary_bytes", None)
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
        restored = restored_by(session, context)
        # A wrong program is wrong on most pictures; what int8 costs single ones is the quality gate's to judge.
        apart = Agreement.between(restored, restored_by_methods(methods(context.student), context))
        executed = f"executed by {self.backend}, {apart} from the full-precision student"
        if apart.median < self.least_psnr:
            raise BackendError(f"{self.name}: {executed}; expected at least {self.least_psnr:.0f} dB in the median")
        if self.quantizer is not None and context.quantized is not None:
            graphs = {
                name: program.module() for name, program in load_graphs(context.quantized / self.quantizer).items()
            }
            apart = Agreement.between(restored, restored_by_methods(graphs, context))
            executed += f", {apart} from its quantised graphs, {apart.close:.2%} of pixels within 1/255"
            if apart.median < self.least_graph_psnr:
                raise BackendError(
                    f"{self.name}: {executed}; expected at least {self.least_graph_psnr:.0f} dB from these"
                )
        return "; ".join(filter(None, (executed, said)))


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("onnx-fp32", "onnx", "write_fp32", "onnxruntime", 80.0),
        # Faster than fp32 with OpenVINO alone, so not part of every bundle.
        Target("onnx-int8", "onnx", "write_int8", "onnxruntime", 30.0, asked=True, quantizer="xnnpack"),
        Target("executorch-xnnpack-fp32", "executorch", "write_fp32", "executorch", 80.0),
        Target("executorch-xnnpack-int8", "executorch", "write_int8", "executorch", 30.0, quantizer="xnnpack"),
        Target("coreml-fp16", "coreml", "write_fp16", "coreml-reference", 60.0),
        Target(
            "coreml-w8a8", "coreml", "write_w8a8", "coreml-reference", 25.0, quantizer="coreml", least_graph_psnr=45.0
        ),
        # Pictures as images are rounded to 8 bits on their way in and out, which alone is 59 dB.
        Target("coreml-images-fp16", "coreml", "write_images_fp16", "coreml-reference", 50.0, asked=True),
        Target(
            "coreml-images-w8a8",
            "coreml",
            "write_images_w8a8",
            "coreml-reference",
            25.0,
            asked=True,
            quantizer="coreml",
            least_graph_psnr=45.0,
        ),
        Target("coreml-ios17-fp16", "coreml", "write_ios17_fp16", "coreml-reference", 60.0, asked=True),
        Target(
            "coreml-ios17-w8a8",
            "coreml",
            "write_ios17_w8a8",
            "coreml-reference",
            25.0,
            asked=True,
            quantizer="coreml",
            least_graph_psnr=45.0,
        ),
        Target("tensorrt-fp16", "tensorrt", "write_fp16", "onnxruntime", 60.0, feature_bytes=2),
        Target(
            "tensorrt-int8", "tensorrt", "write_int8", "onnxruntime", 25.0, quantizer="tensorrt", least_graph_psnr=40.0
        ),
    )
}


def select(names: list[str] | None) -> list[Target]:
    """The targets of the given names; without any, all that need not be asked for. Raises InputError."""
    unknown = [name for name in names or () if name not in TARGETS]
    if unknown:
        raise InputError(f"unknown program {unknown[0]!r}; expected some of {', '.join(TARGETS)}")
    return [TARGETS[name] for name in names] if names else [t for t in TARGETS.values() if not t.asked]
