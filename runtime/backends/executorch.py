"""ExecuTorch's Python runtime: one multi-method program, XNNPACK inside. Needs `burnish[export]`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..cores import usable_cores
from ..errors import BackendError
from ..methods import ENCODE, REFINE, Methods
from .base import Array, Encoded

PROGRAM = "student.pte"
# Weights outside the program: the experts, where the bundle has several packs of them.
EXPERTS = "experts.ptd"


class ExecuTorchSession:
    """student.pte of a program's folder; `experts` is another pack's file in place of the folder's own.

    With `etdump` every run is recorded, for `write_etdump`.
    """

    def __init__(
        self, folder: Path, threads: int | None = None, *, experts: Path | None = None, etdump: bool = False
    ) -> None:
        try:
            import torch
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime, Verification
        except ImportError as error:
            raise BackendError(f"ExecuTorch is not installed ({error}); pip install 'burnish[export]'") from None
        import_module("executorch.kernels.quantized")  # registers operators
        # torch's OpenMP workers spin beside XNNPACK's pool and take its cores.
        torch.set_num_threads(1)
        # Its own choice are the fast cores of the machine, whether this process may use them or not.
        now = portable_lib._threadpool_get_thread_count()
        wanted = threads or min(now, usable_cores())
        if wanted != now:
            portable_lib._unsafe_reset_threadpool(wanted)
        self._tensor: Any = torch.from_numpy
        path, own = folder / PROGRAM, folder / EXPERTS
        if experts is not None and not own.is_file():
            raise BackendError(f"{path} holds its experts itself; export the bundle with --experts to exchange them")
        weights = experts or (own if own.is_file() else None)
        try:
            self._program = Runtime.get().load_program(
                path, verification=Verification.Minimal, enable_etdump=etdump, data_path=weights
            )
            self._methods: Methods[Any] = Methods.by_need(self._program.method_names, self._program.load_method)
        except Exception as error:
            files = path if weights is None else f"{path} with {weights.name}"
            raise BackendError(f"ExecuTorch cannot load {files}: {str(error).splitlines()[0]}") from None
        if any(self._methods.get(name) is None for name in (ENCODE, REFINE)):
            raise BackendError(f"{path} lacks the methods encode and refine")

    def _own(self, array: Array) -> Any:
        return self._tensor(np.ascontiguousarray(array))

    def encode(self, image: Array) -> Encoded:
        *features, tokens, assessment = self._methods[ENCODE].execute([self._own(image)])
        return Encoded.of(features, tokens.numpy(), assessment.numpy())

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        features = (*original.features, *estimate.features[1:])
        restored, quality = self._methods[method].execute(
            [self._own(current), *features, self._own(estimate.tokens), self._own(gates)]
        )
        return restored.numpy(), float(quality)

    def write_etdump(self, path: Path) -> None:
        """Write what was recorded since loading; ExecuTorch's Inspector opens it. Raises BackendError."""
        try:
            self._program.write_etdump_result_to_file(str(path), f"{path}.debug")
        except RuntimeError as error:
            raise BackendError(f"no ETDump ({str(error).splitlines()[0]}); load the program with etdump=True") from None
        Path(f"{path}.debug").unlink(missing_ok=True)  # tensors' values, which nobody asked for


def load(folder: Path, threads: int | None = None) -> ExecuTorchSession:
    """Load a program. Raises BackendError."""
    return ExecuTorchSession(folder, threads)


def load_with_experts(folder: Path, experts: Path, threads: int | None = None) -> ExecuTorchSession:
    """Load a program with another pack of experts. Raises BackendError."""
    return ExecuTorchSession(folder, threads, experts=experts)
