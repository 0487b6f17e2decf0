"""ONNX Runtime: on the CPU, and through the execution providers that this build of it has.

The features that `encode` gives out stay on the provider's device as OrtValues, and go into `refine` from there without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from ..cores import usable_cores
from ..errors import BackendError
from ..methods import ENCODE, ENCODE_OUTPUTS, REFINE, REFINE_INPUTS, REFINE_OUTPUTS, Methods, methods_in
from .base import Array, Encoded


class Provider(NamedTuple):
    """An execution provider and where its outputs lie."""

    name: str
    device: str
    options: dict[str, str]


HALF = {"tensor(float16)": np.float16}
# What stands behind the colon of a backend's name.
PROVIDERS = {
    "": Provider("CPUExecutionProvider", "cpu", {}),
    "cuda": Provider("CUDAExecutionProvider", "cuda", {"cudnn_conv_algo_search": "EXHAUSTIVE"}),
    "tensorrt": Provider("TensorrtExecutionProvider", "cuda", {"trt_fp16_enable": "0"}),
    "coreml": Provider("CoreMLExecutionProvider", "cpu", {"ModelFormat": "MLProgram"}),
    "xnnpack": Provider("XnnpackExecutionProvider", "cpu", {}),
}


def has_provider(variant: str) -> bool:
    """Whether this build of ONNX Runtime has the provider of a variant."""
    return PROVIDERS[variant].name in ort.get_available_providers()


class OnnxSession:
    """encode.onnx, refine.onnx and the specialists' of a program's folder."""

    def __init__(self, folder: Path, threads: int | None = None, variant: str = "") -> None:
        provider = PROVIDERS[variant]
        threads = threads or usable_cores()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # XNNPACK brings its own threads; ONNX Runtime's would spin beside them.
        options.intra_op_num_threads = 1 if variant == "xnnpack" else threads
        settings = {"intra_op_num_threads": str(threads)} if variant == "xnnpack" else provider.options
        # What a provider does not take falls to the CPU.
        providers = [(provider.name, settings), *(["CPUExecutionProvider"] if variant else [])]
        try:
            self._methods: Methods[Any] = Methods.by_need(
                methods_in(folder, ".onnx"),
                lambda name: ort.InferenceSession(str(folder / f"{name}.onnx"), options, providers=providers),
            )
        except Exception as error:  # onnxruntime raises its own unrelated types
            raise BackendError(f"ONNX Runtime cannot load {folder}: {str(error).splitlines()[0]}") from None
        if provider.name not in self._methods[ENCODE].get_providers():
            raise BackendError(
                f"ONNX Runtime's {provider.name} did not start; install its libraries or use another backend"
            )
        self._device = provider.device
        # Tokens are half precision in a program of that.
        self._types = {i.name: HALF.get(i.type, np.float32) for i in self._methods[REFINE].get_inputs()}

    def encode(self, image: Array) -> Encoded:
        session = self._methods[ENCODE]
        binding = session.io_binding()
        binding.bind_cpu_input("image", np.ascontiguousarray(image))
        self._run(session, binding, ENCODE_OUTPUTS[:-2], ENCODE_OUTPUTS[-2:])
        *features, tokens, assessment = binding.get_outputs()
        return Encoded.of(features, tokens.numpy(), assessment.numpy())

    def refine(
        self, current: Array, original: Encoded, estimate: Encoded, gates: Array, method: str = REFINE
    ) -> tuple[Array, float]:
        session = self._methods[method]
        binding = session.io_binding()
        binding.bind_cpu_input(REFINE_INPUTS[0], np.ascontiguousarray(current))
        for name, value in zip(REFINE_INPUTS[1:-2], (*original.features, *estimate.features[1:]), strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(REFINE_INPUTS[-2:], (estimate.tokens, gates), strict=True):
            binding.bind_cpu_input(name, np.ascontiguousarray(value, self._types[name]))
        self._run(session, binding, (), REFINE_OUTPUTS)
        restored, quality = binding.get_outputs()
        return restored.numpy(), float(quality.numpy().reshape(()))

    def _run(self, session: Any, binding: Any, stay: Sequence[str], come: Sequence[str]) -> None:
        """Run with outputs that stay on the device and outputs that come to the host."""
        for name in stay:
            binding.bind_output(name, self._device)
        for name in come:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)


def load(folder: Path, threads: int | None = None, variant: str = "") -> OnnxSession:
    """Load a program. Raises BackendError."""
    return OnnxSession(folder, threads, variant)
