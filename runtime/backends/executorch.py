"""ExecuTorch's Python runtime: one multi-method program, XNNPACK inside. Needs `burnish[export]`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError
from .base import Array, Encoded


class ExecuTorchSession:
    """student.pte of a program's folder."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        try:
            import torch
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime, Verification
        except ImportError as error:
            raise BackendError(f"ExecuTorch is not installed ({error}); pip install 'burnish[export]'") from None
        import_module("executorch.kernels.quantized")  # registers operators
        # torch's OpenMP workers spin beside XNNPACK's pool and take its cores.
        torch.set_num_threads(1)
        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)
        self._tensor: Any = torch.from_numpy
        path = folder / "student.pte"
        try:
            program = Runtime.get().load_program(path, verification=Verification.Minimal)
            self._encode: Any = program.load_method("encode")
            self._refine: Any = program.load_method("refine")
        except Exception as error:
            raise BackendError(f"ExecuTorch cannot load {path}: {str(error).splitlines()[0]}") from None
        if self._encode is None or self._refine is None:
            raise BackendError(f"{path} lacks the methods encode and refine")

    def own(self, array: Array) -> Any:
        return self._tensor(np.ascontiguousarray(array))

    def encode(self, image: Array) -> Encoded:
        *features, tokens, assessment = self._encode.execute([self.own(image)])
        return Encoded.of(features, tokens, assessment.numpy())

    def refine(self, current: Array, original: Encoded, estimate: Encoded, gates: Array) -> tuple[Array, float]:
        values = [self.own(current), *original.features, *estimate.features[1:], estimate.tokens, self.own(gates)]
        restored, quality = self._refine.execute(values)
        return restored.numpy(), float(quality)


def load(folder: Path, threads: int | None = None) -> ExecuTorchSession:
    """Load a program. Raises BackendError."""
    return ExecuTorchSession(folder, threads)
