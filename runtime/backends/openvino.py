"""OpenVINO on the CPU: the fastest int8 on x86. Needs `burnish[openvino]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..cores import usable_cores
from ..errors import BackendError
from ..methods import ENCODE, ENCODE_OUTPUTS, REFINE, REFINE_INPUTS, Methods, methods_in
from .base import Array, Encoded


class OpenVinoSession:
    """encode.onnx, refine.onnx and the specialists' of a program's folder."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        try:
            import openvino
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise BackendError(f"OpenVINO is not installed ({error}); pip install 'burnish[openvino]'") from None
        options = {
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "PERFORMANCE_HINT": "LATENCY",
            # Otherwise processors with bfloat16 units compute in it and results differ from machine to machine.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            core: Any = openvino.Core()
            # By name: a file that is not ONNX would be offered to every reader of OpenVINO, and one of them (2026.4) leaves
            # the thread without the stack that its signals are handled on, so that the next one ends the process.
            reader: Any = FrontEndManager().load_by_framework("onnx")
            self._methods: Methods[Any] = Methods.by_need(
                methods_in(folder, ".onnx"),
                lambda name: core.compile_model(_read(reader, folder, name), "CPU", options).create_infer_request(),
            )
        except Exception as error:  # openvino raises its own unrelated types
            raise BackendError(f"OpenVINO cannot load {folder}: {str(error).strip().splitlines()[-1]}") from None

    def encode(self, image: Array) -> Encoded:
        request = self._methods[ENCODE]
        request.infer({"image": image})
        # Copied: the request's tensors are written again by its next run.
        outputs = [request.get_tensor(name).data.copy() for name in ENCODE_OUTPUTS]
        return Encoded.of(outputs[:-2], outputs[-2], outputs[-1])

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        values = (current, *original.features, *estimate.features[1:], estimate.tokens, gates)
        request = self._methods[method]
        request.infer(dict(zip(REFINE_INPUTS, values, strict=True)))
        quality = request.get_tensor("quality").data
        return request.get_tensor("restored").data.copy(), float(quality.reshape(()))


def _read(reader: Any, folder: Path, method: str) -> Any:
    return reader.convert(reader.load(str(folder / f"{method}.onnx")))


def load(folder: Path, threads: int | None = None) -> OpenVinoSession:
    """Load a program. Raises BackendError."""
    return OpenVinoSession(folder, threads)
